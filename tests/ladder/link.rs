// SPDX-License-Identifier: Apache-2.0
//! Two network namespaces with a cable between them that loses what arrives at one end: the loss is
//! the receiver's, so the sender sees a lossy network and nothing of its own. Needs root, iproute2 and
//! the kernel's clsact and cls_bpf. Removed when dropped.

use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

/// Drops a packet in five: `ld rand; and 255; jge 204 ? shot : ok`, classic BPF.
const DROPS: &str = "5,32 0 0 4294963256,84 0 0 255,53 0 1 204,6 0 0 2,6 0 0 0";
pub(crate) const FAR_ADDRESS: &str = "10.213.77.2";

/// The link.
pub(crate) struct Link {
    near: String,
    far: String,
}

fn run(words: &str, last: Option<&str>) -> String {
    let mut words = words.split(' ');
    let output = Command::new(words.next().expect("a word"))
        .args(words)
        .args(last)
        .stdin(Stdio::null())
        .output()
        .expect("iproute2 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl Link {
    /// Makes it. Names have the test's pid, so that two runs do not meet.
    pub(crate) fn create() -> Link {
        let pid = std::process::id();
        let link = Link {
            near: format!("lacuna-a-{pid}"),
            far: format!("lacuna-b-{pid}"),
        };
        let (near, far) = (&link.near, &link.far);
        run(&format!("ip netns add {near}"), None);
        run(&format!("ip netns add {far}"), None);
        run(
            &format!("ip link add va netns {near} type veth peer name vb netns {far}"),
            None,
        );
        for (name, device, address) in [(near, "va", "10.213.77.1"), (far, "vb", FAR_ADDRESS)] {
            run(
                &format!("ip -n {name} addr add {address}/24 dev {device}"),
                None,
            );
            run(&format!("ip -n {name} link set {device} up"), None);
        }
        run(&format!("tc -n {far} qdisc add dev vb clsact"), None);
        link
    }

    /// Loses one packet in five from now on, on their way to the far end.
    pub(crate) fn lose(&self) {
        let far = &self.far;
        let filter = format!("tc -n {far} filter add dev vb ingress bpf da bytecode");
        run(&filter, Some(DROPS));
    }

    /// Packets lost so far, as the kernel counts them.
    pub(crate) fn lost(&self) -> u64 {
        let text = run(
            &format!("tc -n {} -s -j qdisc show dev vb clsact", self.far),
            None,
        );
        let found: Value = serde_json::from_str(&text).expect("JSON");
        found[0]["drops"].as_u64().expect("a count")
    }

    /// The command that executes what follows it at the near end.
    pub(crate) fn near(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.near]
    }

    /// The same at the far end.
    pub(crate) fn far(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.far]
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            // What is not there any more needs no removing.
            let _gone = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}
