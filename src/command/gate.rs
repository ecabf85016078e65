// SPDX-License-Identifier: Apache-2.0
//! The gate between this program and the command that it holds: a socket pair, one end of which is
//! the held process's standard input until the gate opens.
//!
//! The real standard input crosses the gate as a descriptor (`SCM_RIGHTS`), so that the command has
//! the very same open file: same offset, same flags, also where it cannot be opened twice. Both
//! ends see when the other is gone: nobody waits for a process that has died.

use std::io::ErrorKind;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Read;
use std::io::Result;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::io::write;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::recvmsg;
use rustix::net::sendmsg;

/// What both sides say; its meaning is in who says it.
const WORD: [u8; 1] = *b"!";

/// Outside: waits until the held process is at the gate.
pub(super) fn await_arrival(mut gate: &UnixStream) -> Result<()> {
    gate.read_exact(&mut [0; WORD.len()])
}

/// Outside: opens the gate and hands over this process's standard input.
pub(super) fn open(gate: &UnixStream) -> Result<()> {
    let stdin = std::io::stdin();
    let handed = [stdin.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&handed)) {
        return Err(ErrorKind::OutOfMemory.into());
    }
    // A held process that was killed must be an error here, not a signal that ends this program.
    sendmsg(
        gate,
        &[IoSlice::new(&WORD)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Inside: says that this process is at the gate, and waits until it opens. Returns the standard
/// input that was handed over, or `None` where the other side has gone.
pub(super) fn pass(gate: impl AsFd) -> Result<Option<OwnedFd>> {
    write(&gate, &WORD)?;
    let mut word = WORD;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        let mut room = [IoSliceMut::new(&mut word)];
        match recvmsg(&gate, &mut room, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut handed) => handed.next(),
        _ => None,
    }))
}
