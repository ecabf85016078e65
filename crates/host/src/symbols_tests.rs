// SPDX-License-Identifier: Apache-2.0
//! Symbol tables as kernels write them, hidden ones, and this kernel's own.

use super::FUNCTION_BYTES_MAX;
use super::Kallsyms;
use super::KernelSymbols;
use super::Table;
use super::bare;
use super::kallsyms;
use crate::mutate::mutations;
use crate::root::Root;

const TEXT: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 t local_alias
ffffffff81000000 T _text
ffffffff81000fc0 t __pfx_schedule
ffffffff81001000 T schedule
ffffffff81001800 t futex_wait_queue.isra.0
ffffffff81002000 D jiffies
ffffffff81003000 W weak_one
ffffffffc0000000 t ext4_file_read_iter\t[ext4]
";

fn host(text: &str) -> (tempfile::TempDir, Root) {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("proc")).unwrap();
    std::fs::write(base.path().join("proc/kallsyms"), text).unwrap();
    let root = Root::at(base.path());
    (base, root)
}

fn names(text: &str, addresses: &[u64]) -> Vec<String> {
    let (_base, root) = host(text);
    let names = KernelSymbols::new(root).symbolize(addresses);
    names.into_iter().map(String::from).collect()
}

#[test]
fn return_addresses_are_named_by_the_function_that_called() {
    let schedule = 0xffff_ffff_8100_1000;
    // The last one is where the next function starts: `schedule` ended with that call.
    let addresses = [schedule + 1, schedule + 0x7ff, schedule + 0x800];
    assert_eq!(names(TEXT, &addresses), ["schedule"; 3]);
}

#[test]
fn modules_aliases_and_copies_have_their_plain_names() {
    let addresses = [
        0xffff_ffff_c000_0010,
        0xffff_ffff_8100_0008,
        0xffff_ffff_8100_1900,
    ];
    assert_eq!(
        names(TEXT, &addresses),
        ["ext4_file_read_iter", "_text", "futex_wait_queue"]
    );
}

#[test]
fn what_lies_in_no_function_has_no_name() {
    let far = 0xffff_ffff_c000_0001 + FUNCTION_BYTES_MAX;
    assert_eq!(
        names(TEXT, &[far, 0, 1, 0xffff_ffff_8000_0000, u64::MAX]),
        [""; 5]
    );
    assert_eq!(
        names(TEXT, &[far - 1]),
        ["ext4_file_read_iter"],
        "the last byte that may be its"
    );
}

#[test]
fn hidden_missing_and_broken_tables_name_nothing() {
    let hidden = TEXT
        .replace("ffffffff8", "000000000")
        .replace("000000000100", "000000000000");
    let hidden: String = hidden
        .lines()
        .map(|line| format!("{:016x}{}\n", 0, &line[16..]))
        .collect();
    let address = 0xffff_ffff_8100_1010;
    for text in [
        hidden.as_str(),
        "",
        "\n\nx\n",
        "ffffffff81001000",
        "ffffffff81001000 T",
        "zz T f",
    ] {
        assert_eq!(names(text, &[address]), [""], "{text:?}");
    }
    let nowhere = tempfile::tempdir().unwrap();
    let mut symbols = KernelSymbols::new(Root::at(nowhere.path()));
    assert_eq!(symbols.symbolize(&[address]), ["".into()]);
    assert_eq!(kallsyms(&Root::at(nowhere.path())), Kallsyms::Missing);
    assert_eq!(kallsyms(&host(&hidden).1), Kallsyms::Hidden);
    assert_eq!(kallsyms(&host(TEXT).1), Kallsyms::Readable);
}

#[test]
fn names_lose_what_the_compiler_appended() {
    let cases = [
        ("f.isra.0", "f"),
        ("f.cold", "f"),
        ("f", "f"),
        (".f", ".f"),
        ("", ""),
    ];
    for (name, expected) in cases {
        assert_eq!(bare(name), expected);
    }
}

#[test]
fn the_table_is_let_go_and_the_names_stay() {
    let (base, root) = host(TEXT);
    let mut symbols = KernelSymbols::new(root);
    assert_eq!(
        symbols.table_bytes(),
        0,
        "nothing is read before it is needed"
    );
    let addresses = [0xffff_ffff_8100_1010];
    assert_eq!(symbols.symbolize(&addresses), ["schedule".into()]);
    assert!(symbols.table_bytes() > 0);
    symbols.trim();
    assert!(symbols.table_bytes() > 0, "it was needed just now");
    symbols.used_at = None;
    symbols.trim();
    assert_eq!(symbols.table_bytes(), 0);
    std::fs::remove_file(base.path().join("proc/kallsyms")).unwrap();
    assert_eq!(
        symbols.symbolize(&addresses),
        ["schedule".into()],
        "from the cache"
    );
}

#[test]
fn a_table_is_packed_without_losing_a_name() {
    let text: String = (1..=1000)
        .map(|n| format!("{:x} t function_{n}\n", n * 16))
        .collect();
    let table = Table::read(text.as_bytes()).unwrap();
    for n in 1..=1000 {
        assert_eq!(
            table.name(n * 16 + 5),
            Some(format!("function_{n}").as_str())
        );
    }
    assert_eq!(table.name(15), None);
}

#[test]
fn root_the_own_kernel_names_its_functions() {
    let root = Root::host();
    assert_eq!(kallsyms(&root), Kallsyms::Readable);
    let text = root.read("/proc/kallsyms").unwrap();
    let line = text
        .lines()
        .find(|line| line.ends_with(" T schedule"))
        .unwrap();
    let address = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
    let mut symbols = KernelSymbols::new(root);
    assert_eq!(symbols.symbolize(&[address + 1]), ["schedule".into()]);
    // 8 + 4 bytes a function and its name: some 5 MB on a kernel of a distribution.
    assert!(
        symbols.table_bytes() < 16 << 20,
        "{} bytes",
        symbols.table_bytes()
    );
}

#[test]
fn no_table_of_symbols_makes_the_parser_fail() {
    for text in mutations(TEXT) {
        let table = Table::read(text.as_bytes()).unwrap();
        assert!(table.addresses.is_sorted(), "{text:?}");
        for address in [0, 0xffff_ffff_8100_1010, u64::MAX] {
            assert!(
                table.name(address).is_none_or(|name| text.contains(name)),
                "{text:?}"
            );
        }
    }
}
