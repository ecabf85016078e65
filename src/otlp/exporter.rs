// SPDX-License-Identifier: Apache-2.0
//! Which SDK's exporter a request says it comes from.
//!
//! The OTLP exporter of an SDK names itself and its language in `User-Agent`
//! (`OTel-OTLP-Exporter-Rust/0.30`; the specification's "OTLP exporter, user agent"). A collector
//! names itself, or nobody. A proxy passes on what it was given: so the name can clear a doubt, and
//! never proves whose connection it is.

use axum::http::HeaderMap;
use axum::http::header;

/// What comes before the language, in lower case and with spaces for hyphens: Go's name has spaces.
const BEFORE_LANGUAGE: &str = "otlp exporter ";

/// Bytes of the longest language that is told apart; the known ones have at most ten.
const LANGUAGE_BYTES_MAX: usize = 32;

/// Bytes of a `User-Agent` that are looked at; a real one has some fifty.
const AGENT_BYTES_MAX: usize = 256;

/// The language of the SDK whose exporter sent a request, where it says that it is one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Exporter(Option<Box<str>>);

impl Exporter {
    /// By a request's headers.
    pub(super) fn of(headers: &HeaderMap) -> Exporter {
        let agent = headers
            .get(header::USER_AGENT)
            .map_or(&b""[..], |value| value.as_bytes());
        Exporter::named(&agent[..agent.len().min(AGENT_BYTES_MAX)])
    }

    fn named(agent: &[u8]) -> Exporter {
        let agent = String::from_utf8_lossy(agent)
            .to_ascii_lowercase()
            .replace('-', " ");
        let language = agent.split_once(BEFORE_LANGUAGE).map(|(_, rest)| {
            let end = rest.find(['/', ' ']).unwrap_or(rest.len());
            &rest[..end]
        });
        let known = language.filter(|language| (1..=LANGUAGE_BYTES_MAX).contains(&language.len()));
        Exporter(known.map(Box::from))
    }

    /// Whether it is the exporter of the SDK with that `telemetry.sdk.language`.
    pub(crate) fn is_of(&self, sdk_language: &str) -> bool {
        match self.0.as_deref() {
            None => false,
            Some("javascript") => matches!(sdk_language, "nodejs" | "webjs"),
            Some(language) => language == sdk_language,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exporter;

    #[test]
    fn exporters_of_sdks_name_their_language() {
        let named = [
            ("OTel-OTLP-Exporter-Rust/0.33.1 tonic/0.14.9", "rust"),
            ("OTel-OTLP-Exporter-Python/1.38.0", "python"),
            ("OTel OTLP Exporter Go/1.38.0 grpc-go/1.75.0", "go"),
            ("OTel-OTLP-Exporter-JavaScript/0.205.0", "nodejs"),
            (
                "elastic-otlp-http-javascript/1.4.0 OTel-OTLP-Exporter-JavaScript/0.205.0",
                "nodejs",
            ),
            ("OTel-OTLP-Exporter-Cpp/1.23.0", "cpp"),
        ];
        for (agent, language) in named {
            let exporter = Exporter::named(agent.as_bytes());
            assert!(exporter.is_of(language), "{agent}");
            assert!(!exporter.is_of("php"), "{agent}");
        }
    }

    #[test]
    fn others_are_no_sdks_exporters() {
        let long = format!("OTel-OTLP-Exporter-{}/1", "x".repeat(200));
        for agent in [
            "",
            "Rotel Rust/1.84.1 hyper/1.52.0",
            "OpenTelemetry Collector Contrib/0.138.0 (linux/amd64)",
            "OTel-OTLP-Exporter-/1",
            "\u{fffd}OTLP-Exporter",
            &long,
        ] {
            for language in ["", "rust", "go"] {
                assert!(
                    !Exporter::named(agent.as_bytes()).is_of(language),
                    "{agent}"
                );
            }
        }
        assert_eq!(Exporter::named(&[0xff; 300]), Exporter::default());
    }
}
