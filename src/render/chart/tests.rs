// SPDX-License-Identifier: Apache-2.0
//! The picture as a file beside its JSON (`UPDATE=1` writes it; look at it before committing), and that
//! it stays within its frame whatever was measured.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::chart;
use crate::answer::BlindReport;

fn snapshot(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/render/snapshots")
        .join(name)
}

fn read_blind(name: &str) -> BlindReport {
    let text = fs::read_to_string(snapshot(&format!("{name}.json"))).unwrap();
    let report: BlindReport = serde_json::from_str(&text).unwrap();
    report.check().unwrap();
    report
}

#[test]
fn the_picture_of_bursts() {
    for name in ["blind", "blind-unseen"] {
        let seen = chart(&read_blind(name));
        let path = snapshot(&format!("{name}.svg"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &seen).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap();
        assert!(
            seen == expected,
            "{name} is now (UPDATE=1 accepts it):\n{seen}"
        );
    }
}

/// The numbers of an attribute of every element of that kind.
fn numbers(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
    let opening = format!("<{element} ");
    let elements = svg.split(&opening).skip(1);
    let values = elements.filter_map(|rest| {
        let inside = rest.split('>').next()?;
        let value = inside.split(&format!("{attribute}=\"")).nth(1)?;
        value.split('"').next()?.parse().ok()
    });
    values.collect()
}

#[test]
fn a_picture_of_any_bursts_stays_within_its_frame() {
    let report = read_blind("blind");
    for (bursts, scale) in [(1, 1), (7, 1), (50, 3), (1_000, 40), (3, 1_000_000)] {
        let mut report = report.clone();
        for run in &mut report.runs {
            let longer = run.samples.iter().cycle().take(bursts).map(|sample| {
                let mut sample = sample.clone();
                // Only what is drawn matters here.
                sample.wall_ns += sample.gap_ns * (scale - 1);
                sample.gap_ns *= scale;
                sample.causes.iter_mut().for_each(|cause| cause.ns *= scale);
                sample
            });
            run.samples = longer.collect();
        }
        let svg = chart(&report);
        assert_eq!(
            svg.matches("<title>burst ").count(),
            2 * bursts,
            "a bar for each"
        );
        let known = [
            "svg", "/svg", "style", "/style", "rect", "text", "/text", "line", "path", "g", "/g",
            "title", "/title",
        ];
        for rest in svg.split('<').skip(1) {
            let name = rest.split([' ', '>']).next().unwrap();
            assert!(known.contains(&name), "<{name} is no element of ours");
        }
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        let frame = numbers(&svg, "svg", "height")[0];
        let (tops, heights) = (numbers(&svg, "rect", "y"), numbers(&svg, "rect", "height"));
        // The first rectangle is the frame, which has no place of its own.
        for (top, height) in tops.iter().zip(&heights[1..]) {
            assert!(
                *top >= 0.0 && top + height <= frame,
                "{bursts} {scale}: {top} {height}"
            );
        }
        let (lefts, widths) = (numbers(&svg, "rect", "x"), numbers(&svg, "rect", "width"));
        for (left, width) in lefts.iter().zip(&widths[1..]) {
            assert!(
                *left >= 0.0 && left + width <= widths[0],
                "{bursts} {scale}: {left}"
            );
        }
        let labels = svg.matches("class=\"a m\"").count();
        assert!(
            labels <= 2 * (27 + 1),
            "{labels} numbers below {bursts} bursts touch"
        );
    }
}
