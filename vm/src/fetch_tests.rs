// SPDX-License-Identifier: Apache-2.0
//! Pinned, cached, fallen back or failed: without network, with an archive made of a table.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Result;
use anyhow::bail;

use super::Archive;
use super::WrongChecksum;
use super::fetch;
use super::natural;
use crate::list::Kernel;
use crate::list::Package;

/// SHA-256 of the text `pinned`.
const PINNED: &str = "3fab5c181bd28a09b64397df76ae2bfaf1eac182979b5fdb7a342858004f36af";

/// What each package holds, by `name=version`; and what is listed but gone.
#[derive(Default)]
struct Shelf {
    packages: BTreeMap<String, &'static str>,
    listed: Vec<&'static str>,
    asked: Vec<String>,
}

impl Archive for Shelf {
    fn releases(&mut self, _: &str) -> Result<Vec<String>> {
        Ok(self.listed.iter().map(|name| (*name).to_owned()).collect())
    }

    fn get(&mut self, name: &str, version: Option<&str>, folder: &Path) -> Result<PathBuf> {
        let key = format!("{name}={}", version.unwrap_or("newest"));
        self.asked.push(key.clone());
        let Some(content) = self.packages.get(&key) else {
            bail!("404 {key}");
        };
        let file = folder.join(format!("{name}_{}_amd64.deb", version.unwrap_or("newest")));
        fs::write(&file, content)?;
        Ok(file)
    }
}

fn kernel() -> Kernel {
    Kernel {
        name: "5.10".to_owned(),
        archives: vec!["http://example.org/debian suite main".to_owned()],
        release: "5.10.0-43-cloud-amd64".to_owned(),
        series: "5.10.".to_owned(),
        packages: vec![Package {
            prefix: "linux-image-".to_owned(),
            version: "5.10.251-5".to_owned(),
            sha256: PINNED.to_owned(),
        }],
        cannot: Vec::new(),
        except: Vec::new(),
    }
}

fn pinned_shelf(content: &'static str) -> Shelf {
    let name = "linux-image-5.10.0-43-cloud-amd64=5.10.251-5".to_owned();
    Shelf {
        packages: BTreeMap::from([(name, content)]),
        ..Shelf::default()
    }
}

#[test]
fn what_is_pinned_is_got_once() {
    let cache = tempfile::tempdir().unwrap();
    let mut shelf = pinned_shelf("pinned");
    for _ in 0..2 {
        let fetched = fetch(&kernel(), cache.path(), &mut shelf).unwrap();
        assert_eq!(fetched.release, "5.10.0-43-cloud-amd64");
        assert_eq!(fetched.fallback, None);
        assert_eq!(fetched.files.len(), 1);
    }
    assert_eq!(shelf.asked.len(), 1, "{:?}", shelf.asked);
}

#[test]
fn another_content_under_the_pinned_name_is_never_used() {
    let cache = tempfile::tempdir().unwrap();
    let mut shelf = pinned_shelf("another");
    shelf.listed = vec!["5.10.0-43-cloud-amd64"];
    let error = fetch(&kernel(), cache.path(), &mut shelf).unwrap_err();
    assert!(error.is::<WrongChecksum>(), "{error:#}");
}

#[test]
fn the_fallback_is_the_newest_of_the_series_that_is_really_there() {
    let cache = tempfile::tempdir().unwrap();
    let mut shelf = Shelf {
        listed: vec![
            "5.10.0-9-cloud-amd64",
            "5.10.0-44-cloud-amd64",
            "5.10.0-45-amd64",
            "6.1.0-50-cloud-amd64",
            "5.10.0-46-cloud-amd64-unsigned",
            "5.10.0-10-cloud-amd64",
        ],
        ..Shelf::default()
    };
    for release in ["5.10.0-9", "5.10.0-10"] {
        let name = format!("linux-image-{release}-cloud-amd64=newest");
        shelf.packages.insert(name, "other");
    }
    let fetched = fetch(&kernel(), cache.path(), &mut shelf).unwrap();
    assert_eq!(fetched.release, "5.10.0-10-cloud-amd64");
    assert!(fetched.fallback.unwrap().contains("404"));
    assert_eq!(
        shelf.asked[1], "linux-image-5.10.0-44-cloud-amd64=newest",
        "the newest that is listed is tried first"
    );
}

#[test]
fn a_kernel_that_cannot_be_had_is_an_error_that_says_all_that_was_tried() {
    let cache = tempfile::tempdir().unwrap();
    let mut shelf = Shelf {
        listed: vec!["5.10.0-44-cloud-amd64"],
        ..Shelf::default()
    };
    let error = fetch(&kernel(), cache.path(), &mut shelf).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("5.10.0-43-cloud-amd64"), "{text}");
    assert!(text.contains("5.10.0-44-cloud-amd64"), "{text}");
}

#[test]
fn releases_compare_as_people_read_them() {
    for (less, more) in [
        ("5.10.0-9-cloud", "5.10.0-10-cloud"),
        ("6.12.107+deb13", "6.12.115+deb13"),
        ("6.12.115+deb13-cloud", "6.12.115+deb13.1-cloud"),
        ("7.2.13", "7.10.1"),
        ("7.2", "7.2.1"),
    ] {
        assert_eq!(natural(less, more), Ordering::Less, "{less} {more}");
        assert_eq!(natural(more, less), Ordering::Greater, "{less} {more}");
        assert_eq!(natural(less, less), Ordering::Equal);
    }
}
