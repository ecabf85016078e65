// SPDX-License-Identifier: Apache-2.0
//! The bars of `lacuna blind` as SVG: one for each burst, what ran of it below, its gap above, by cause
//! where the causes are known.
//!
//! Text alone, written by hand: a picture of rectangles needs no library. Both runs have one scale, so
//! that they can be compared by eye. All words in it are ours.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;

use super::blind::title;
use super::quantity::Column;
use super::quantity::grouped;
use super::quantity::percent;
use crate::answer::BlindReport;
use crate::answer::BlindRun;
use crate::answer::Sample;

/// Width of the picture, and of what is left of and right of the bars.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 28.0;
/// Where the first panel begins, how high its bars may be, and what is above and below them.
const TOP: f64 = 84.0;
const PLOT: f64 = 240.0;
const ABOVE: f64 = 46.0;
const BELOW: f64 = 44.0;
/// Height of a line of the legend, and the room after the last panel.
const LEGEND_LINE: f64 = 22.0;
const BOTTOM: f64 = 14.0;
/// About how wide a character of the legend is.
const CHARACTER: f64 = 7.0;
/// How far apart the numbers of bursts are at least.
const NUMBERS_APART: f64 = 34.0;
/// Lines of the scale at most.
const TICKS_MAX: u64 = 6;
/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

/// Of text and of the line of the work.
const INK: &str = "#1f2933";
const DASHED: &str = " stroke-dasharray=\"5 4\"";
const ON_CPU: &str = "#2f6f8f";
const ON_CPU_WORDS: &str = "on CPU";
/// Of the largest cause first; all others share the last.
const GAPS: [&str; 5] = ["#f2a33a", "#d1495b", "#8e6bbf", "#4f9d69", "#a3a9b3"];
const OTHERS: &str = "other causes";
const GAP_WORDS: &str = "gap: what the program cannot see";
const STYLE: &str = "text{font-family:system-ui,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;fill:#1f2933}\
.h{font-size:20px;font-weight:600}.s{font-size:13px;fill:#5b6673}.p{font-size:15px;font-weight:600}\
.a{font-size:12px;fill:#5b6673}.r{text-anchor:end}.m{text-anchor:middle}";

/// What a colour means, in the order of the legend and, from below, of a bar.
struct Key {
    words: String,
    colour: &'static str,
}

/// The whole picture.
pub(crate) fn chart(report: &BlindReport) -> String {
    let keys = keys(report);
    let legend = legend(&keys, &format!("{} ms of work", report.burst_ns / MS));
    let panel = ABOVE + PLOT + BELOW;
    let top = TOP + legend.1;
    let height = top + panel * report.runs.len() as f64 + BOTTOM;
    let scale = Scale::of(report);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n",
        "Wall time against time on a CPU, burst by burst"
    );
    let work = report.burst_ns / MS;
    text(
        &mut svg,
        (LEFT, 36.0),
        "h",
        &format!("Bursts of {work} ms of work: what a span records, and what ran"),
    );
    let bar =
        "A bar is the wall time of one burst. Its lower part ran; the program cannot see the rest.";
    text(&mut svg, (LEFT, 58.0), "s", bar);
    svg.push_str(&legend.0);
    for (place, run) in report.runs.iter().enumerate() {
        let top = top + panel * place as f64;
        draw(&mut svg, run, report, &keys, &scale, top);
    }
    svg.push_str("</svg>\n");
    svg
}

/// One key for what ran, one for each cause or group of causes that has a gap's time, largest first.
fn keys(report: &BlindReport) -> Vec<Key> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    let samples = report.runs.iter().flat_map(|run| &run.samples);
    for (words, ns) in samples.flat_map(gap_parts) {
        *sums.entry(words).or_default() += ns;
    }
    let mut sums: Vec<(String, u64)> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let own = match sums.len() > GAPS.len() {
        true => GAPS.len() - 1,
        false => sums.len(),
    };
    let mut keys = vec![Key {
        words: ON_CPU_WORDS.to_owned(),
        colour: ON_CPU,
    }];
    let more = sums.len() > own;
    let named = sums.into_iter().take(own).map(|(words, _)| words);
    let words = named.chain(more.then(|| OTHERS.to_owned()));
    keys.extend(words.zip(GAPS).map(|(words, colour)| Key { words, colour }));
    keys
}

/// The parts of a burst's gap in words, each with its length.
fn gap_parts(sample: &Sample) -> Vec<(String, u64)> {
    if sample.causes.is_empty() {
        return vec![(GAP_WORDS.to_owned(), sample.gap_ns)];
    }
    let parts = sample.causes.iter().map(|part| {
        // In a gap, what ran was not the thread.
        let words = match part.cause {
            lacuna_timeline::Cause::Cpu => "interrupts, hypervisor, switching",
            cause => cause.phrase(),
        };
        (words.to_owned(), part.ns)
    });
    parts.collect()
}

/// The keys side by side, as many as fit in a line, then the dashed line; and how high that is.
fn legend(keys: &[Key], dashed: &str) -> (String, f64) {
    let mut svg = String::new();
    let (mut x, mut y) = (LEFT, TOP);
    let colours = keys
        .iter()
        .map(|key| (key.words.as_str(), Some(key.colour)));
    for (words, colour) in colours.chain([(dashed, None)]) {
        let width = 18.0 + words.chars().count() as f64 * CHARACTER + 20.0;
        if x + width > WIDTH - RIGHT && x > LEFT {
            (x, y) = (LEFT, y + LEGEND_LINE);
        }
        let _ = match colour {
            Some(colour) => writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{colour}\"/>",
                y - 10.5
            ),
            None => writeln!(
                svg,
                "<path d=\"M{:.1} {:.1}h18\" stroke=\"{INK}\"{DASHED}/>",
                x - 4.0,
                y - 4.5
            ),
        };
        text(&mut svg, (x + 18.0, y), "s", words);
        x += width;
    }
    (svg, y - TOP + LEGEND_LINE)
}

/// From nanoseconds to heights: one for all panels.
struct Scale {
    max_ms: u64,
    step_ms: u64,
}

impl Scale {
    fn of(report: &BlindReport) -> Scale {
        let samples = report.runs.iter().flat_map(|run| &run.samples);
        let longest = samples.map(|sample| sample.wall_ns).max().unwrap_or(0);
        // The line of the work itself is always in the picture.
        let longest_ms = longest.max(report.burst_ns).div_ceil(MS).max(1);
        let steps = (0..).flat_map(|power| [1, 2, 5].map(|one| one * 10_u64.saturating_pow(power)));
        let mut steps = steps.skip_while(|step| longest_ms.div_ceil(*step) > TICKS_MAX);
        let step_ms = steps.next().unwrap_or(longest_ms);
        Scale {
            max_ms: longest_ms.div_ceil(step_ms) * step_ms,
            step_ms,
        }
    }

    fn height(&self, ns: u64) -> f64 {
        PLOT * ns as f64 / (self.max_ms * MS) as f64
    }
}

fn draw(
    svg: &mut String,
    run: &BlindRun,
    report: &BlindReport,
    keys: &[Key],
    scale: &Scale,
    top: f64,
) {
    let floor = top + ABOVE + PLOT;
    let width = WIDTH - LEFT - RIGHT;
    text(svg, (LEFT, top + 20.0), "p", &title(run, report));
    let median = format!(
        "median: wall {}, on CPU {}, gap {} of the wall time",
        ms(run.wall_ns.p50),
        ms(run.on_cpu_ns.p50),
        percent(run.gap_ns.p50, run.wall_ns.p50)
    );
    text(svg, (WIDTH - RIGHT, top + 20.0), "s r", &median);
    for tick in (0..=scale.max_ms).step_by(usize::try_from(scale.step_ms).unwrap_or(1)) {
        let y = floor - scale.height(tick * MS);
        let colour = if tick == 0 { "#5b6673" } else { "#e3e7ec" };
        line(svg, y, colour, "");
        let unit = if tick == scale.max_ms { " ms" } else { "" };
        text(
            svg,
            (LEFT - 8.0, y + 4.0),
            "a r",
            &format!("{}{unit}", grouped(tick)),
        );
    }
    let pitch = width / run.samples.len().max(1) as f64;
    let bar = (pitch * 0.78).min(36.0);
    for (place, sample) in run.samples.iter().enumerate() {
        let x = LEFT + pitch * place as f64 + (pitch - bar) / 2.0;
        draw_bar(svg, sample, place, keys, scale, (x, floor, bar));
    }
    let work = floor - scale.height(report.burst_ns);
    line(svg, work, INK, DASHED);
    draw_numbers(svg, run.samples.len(), pitch, floor);
}

fn draw_bar(
    svg: &mut String,
    sample: &Sample,
    place: usize,
    keys: &[Key],
    scale: &Scale,
    (x, floor, width): (f64, f64, f64),
) {
    let mut parts: BTreeMap<usize, u64> = BTreeMap::from([(0, sample.on_cpu_ns)]);
    for (words, ns) in gap_parts(sample) {
        // What has no key of its own belongs to the last.
        let key = keys.iter().position(|key| key.words == words);
        *parts.entry(key.unwrap_or(keys.len() - 1)).or_default() += ns;
    }
    let parts_of = [sample.wall_ns, sample.on_cpu_ns, sample.gap_ns].map(ms);
    let [wall, on_cpu, gap] = parts_of.map(|part| escaped(&part));
    let burst = place + 1;
    let _ = write!(
        svg,
        "<g><title>burst {burst}: wall {wall}, on CPU {on_cpu}, gap {gap}</title>"
    );
    let mut y = floor;
    for (key, ns) in parts {
        let height = scale.height(ns);
        y -= height;
        // Below a hundredth of a dot there is nothing to see.
        if height >= 0.01 {
            let colour = keys.get(key).map_or(ON_CPU, |key| key.colour);
            let _ = write!(
                svg,
                "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{colour}\"/>"
            );
        }
    }
    svg.push_str("</g>\n");
}

/// Numbers of bursts below the bars, as far apart as there is room.
fn draw_numbers(svg: &mut String, bursts: usize, pitch: f64, floor: f64) {
    let steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000];
    let fits = |step: &&usize| **step as f64 * pitch >= NUMBERS_APART;
    let step = steps.iter().find(fits).copied().unwrap_or(1_000);
    for burst in (1..=bursts).filter(|burst| *burst == 1 || burst % step == 0) {
        // Too near to the first, which is always there.
        if burst != 1 && (burst - 1) as f64 * pitch < NUMBERS_APART {
            continue;
        }
        let x = LEFT + pitch * (burst as f64 - 0.5);
        text(svg, (x, floor + 17.0), "a m", &burst.to_string());
    }
    text(
        svg,
        (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, floor + 35.0),
        "a m",
        "burst",
    );
}

fn line(svg: &mut String, y: f64, colour: &str, more: &str) {
    let right = WIDTH - RIGHT;
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{y:.2}\" x2=\"{right}\" y2=\"{y:.2}\" stroke=\"{colour}\"{more}/>"
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), class: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{words}</text>"
    );
}

/// Words as XML has them: "<0.1 %" is no element.
fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}

fn ms(ns: u64) -> String {
    Column::TENTHS_MS.show(ns)
}
