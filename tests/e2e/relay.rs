// SPDX-License-Identifier: Apache-2.0
//! A proxy between a program and whoever receives its spans: it passes bytes on and reads none.
//!
//! What it passes on says that it comes from the program's own exporter, but the connection is the
//! proxy's, which is this test: a native program, as the sample programs are.

use std::io;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

/// A listening proxy; dropped, it accepts no more.
pub(crate) struct Relay {
    /// Where it listens on this host.
    pub(crate) port: u16,
    ended: Arc<AtomicBool>,
}

impl Relay {
    /// Passes on to that port of this host.
    pub(crate) fn start(to_port: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let ended = Arc::new(AtomicBool::new(false));
        let over = ended.clone();
        thread::spawn(move || {
            for program in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let program = program.expect("a connection");
                let receiver = TcpStream::connect(("127.0.0.1", to_port)).expect("the receiver");
                pass_on(&program, &receiver);
                pass_on(&receiver, &program);
            }
        });
        Relay { port, ended }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the thread that accepts; where it has ended already there is nobody to wake.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Passes on what comes, on a thread of its own, until either side has closed.
fn pass_on(from: &TcpStream, to: &TcpStream) {
    let mut from = from.try_clone().expect("a descriptor");
    let mut to = to.try_clone().expect("a descriptor");
    thread::spawn(move || {
        // That one side is gone is how it ends.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}
