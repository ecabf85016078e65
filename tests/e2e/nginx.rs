// SPDX-License-Identifier: Apache-2.0
//! nginx as the distribution ships it, with one worker, as a server that clients wait for.
//!
//! What it says of a request, in its own access log, is truth for the tests. It knows nothing of Lacuna.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::peers::PATIENCE;
use crate::process::Process;
use crate::programs::undisturbed;
use crate::scenario::free_port;

/// nginx with one worker.
pub(crate) struct Nginx {
    process: Process,
    pub(crate) port: u16,
    configuration: PathBuf,
}

impl Nginx {
    /// `listens` are options of its port, `http` is more of its `http` block and `locations` are its server's.
    pub(crate) fn start(directory: &Path, listens: &str, http: &str, locations: &str) -> Nginx {
        let port = free_port();
        let at = directory.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}/{name};\n"))
            .concat();
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {at}/nginx.pid;\nerror_log stderr;\n\
             events {{ }}\n\
             http {{\n\
             log_format served 'uri $uri by $pid took $upstream_response_time';\n\
             access_log /dev/stdout served;\n{temporary}\
             {http}\
             server {{\n\
             listen 127.0.0.1:{port} {listens};\n\
             {locations}\
             }}\n}}\n"
        );
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, text).expect("the configuration is written");
        let mut command = undisturbed(Path::new("nginx"));
        command.arg("-c").arg(&configuration);
        let process = Process::start("nginx", command);
        process.wait_for_listener(port);
        Nginx {
            process,
            port,
            configuration,
        }
    }

    /// Which worker served a request, and how long it waited for the upstream, by its own log.
    pub(crate) fn served(&self, id: &str) -> (u32, u64) {
        let line = self.process.wait_for_line(&format!("/{id} by "), PATIENCE);
        let words: Vec<&str> = line.split(' ').collect();
        let [_, _, _, worker, _, seconds] = words[..] else {
            panic!("not a line of nginx's log: {line}")
        };
        let seconds: f64 = seconds.parse().expect("seconds");
        (worker.parse().expect("a pid"), (seconds * 1e9) as u64)
    }
}

/// Its workers outlive a master that is killed before it has stopped them.
impl Drop for Nginx {
    fn drop(&mut self) {
        let mut stop = Command::new("nginx");
        stop.arg("-c").arg(&self.configuration).args(["-s", "stop"]);
        let told = stop.status().is_ok_and(|status| status.success());
        if !told || !self.process.ends_within(PATIENCE) {
            eprintln!("nginx cannot be stopped:\n{}", self.process.tail());
        }
    }
}
