// SPDX-License-Identifier: Apache-2.0
//! Prints what the kernel side says of this host for some seconds: for looking, not for parsing.

use lacuna_probes::Config;
use lacuna_probes::Probes;
use std::error::Error;
use std::io::Write;
use std::io::stdout;
use std::time::Duration;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(2), |text| text.parse())?;
    let config = Config {
        ignore_tgid: Some(std::process::id()),
        ..Config::default()
    };
    let begun = Instant::now();
    let mut probes = Probes::load(&config, Box::new(|frames| vec!["?".into(); frames.len()]))?;
    let mut out = std::io::BufWriter::new(stdout().lock());
    writeln!(out, "loaded in {:?}", begun.elapsed())?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut events = Vec::new();
    while Instant::now() < end {
        probes.wait(Duration::from_millis(100))?;
        probes.drain(&mut |event| events.push(event))?;
        for event in events.drain(..) {
            writeln!(out, "{event:?}")?;
        }
    }
    probes.snapshot(&mut |event| events.push(event))?;
    for event in events {
        writeln!(out, "{event:?}")?;
    }
    writeln!(out, "{:#?}", probes.counters()?)?;
    writeln!(out, "{:#?}", probes.run_stats(Duration::from_secs(1))?)?;
    Ok(())
}
