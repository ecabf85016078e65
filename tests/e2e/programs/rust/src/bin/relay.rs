// SPDX-License-Identifier: Apache-2.0
//! A proxy between a program and whoever receives its spans: it passes bytes on and reads none.
//!
//! What it passes on says that it comes from the program's own exporter, but the connection is the
//! proxy's, and it is a native program as the others here are. Makes no spans of its own.
//! Usage: relay FROM_PORT TO_PORT

use std::io;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;

fn main() -> io::Result<()> {
    let mut ports = std::env::args()
        .skip(1)
        .filter_map(|port| port.parse().ok());
    let (Some(from_port), Some(to_port)) = (ports.next(), ports.next()) else {
        return Err(io::Error::other("usage: relay FROM_PORT TO_PORT"));
    };
    let listener = TcpListener::bind(("127.0.0.1", from_port))?;
    for program in listener.incoming() {
        let program = program?;
        let receiver = TcpStream::connect(("127.0.0.1", to_port))?;
        pass_on(program.try_clone()?, receiver.try_clone()?);
        pass_on(receiver, program);
    }
    Ok(())
}

/// Passes on what comes, on a thread of its own, until either side has closed.
fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        // That one side is gone is how it ends.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}
