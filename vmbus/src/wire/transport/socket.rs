//! The system calls of the transport. Every descriptor is closed on exec; nothing here waits; no call raises SIGPIPE.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect as connect_to,
    listen as listen_on, recv, recvmsg, send as send_bytes, sendmsg, socket_with, socketpair,
};

use super::frame::MAX_FRAME_BYTES;
use crate::Error;

/// Descriptors that one frame can carry: the kernel's limit (SCM_MAX_FD).
pub(in crate::wire) const MAX_DESCRIPTORS: usize = 253;

/// Guests that may wait to be accepted. One more is told to try again.
const BACKLOG: i32 = 128;

const NEW: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Two connected sockets, one for each side: guest and host in one process.
///
/// # Errors
/// [`Error::Io`] when there are no descriptors left.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, NEW, None)
        .map_err(|error| Error::io("create", "a pair of sockets", error))
}

/// Connects to a listening path. A Unix socket connects at once or not at all.
pub(in crate::wire) fn connect(path: &Path) -> Result<OwnedFd, Error> {
    let attempt = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, NEW, None)?;
        connect_to(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    attempt().map_err(|error: Errno| Error::io("connect to", path, error))
}

/// Listens on a path that does not exist yet.
pub(in crate::wire) fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, NEW, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen_on(&socket, BACKLOG)?;
    Ok(socket)
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The socket has it.
    Whole,
    /// The socket has no room now.
    Full,
}

pub(super) fn send(socket: BorrowedFd<'_>, frame: &[u8]) -> Result<Sent, Errno> {
    loop {
        match send_bytes(socket, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(Sent::Whole),
            // ENOBUFS: the kernel has no memory for it now.
            Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(Sent::Full),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends a frame with descriptors, on a socket that has room for it.
pub(in crate::wire) fn send_with(
    socket: BorrowedFd<'_>,
    frame: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOMANYREFS);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match sendmsg(socket, &[IoSlice::new(frame)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What came out of the socket.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::wire) enum Received<'a> {
    /// A frame. One that was longer than any frame is as long as the buffer, which is longer, too.
    Frame(&'a [u8]),
    /// Nothing now.
    Nothing,
    /// The other side has closed its end, or died. (An empty frame reads like that, and none is ever sent.)
    Ended,
}

/// Room for one frame, and a byte more, by which one that is too long is known.
pub(in crate::wire) type Buffer = [u8; MAX_FRAME_BYTES + 1];

/// Receives a frame. Descriptors that came with it are closed by the kernel.
///
/// A side that closes with frames unread resets the other, and that is reported first, once. What it had sent before is
/// still there behind the report: a refusal must be readable.
pub(in crate::wire) fn receive<'a>(socket: BorrowedFd<'_>, buffer: &'a mut Buffer) -> Result<Received<'a>, Errno> {
    let mut reset = false;
    loop {
        let received = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT);
        match received {
            Err(Errno::CONNRESET) if !reset => reset = true,
            Ok((0, _)) | Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Received::Ended),
            Ok((bytes, _)) => return Ok(Received::Frame(buffer.get(..bytes).unwrap_or_default())),
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Receives a frame with its descriptors, whatever they are. `None` in their place when some got lost on the way: there
/// was no room for them in this process.
pub(in crate::wire) fn receive_with<'a>(
    socket: BorrowedFd<'_>,
    buffer: &'a mut Buffer,
) -> Result<(Received<'a>, Option<Vec<OwnedFd>>), Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let outcome = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut buffer[..])], &mut control, flags) {
            Err(Errno::INTR) => {}
            outcome => break outcome,
        }
    };
    // Whatever came is owned from here on, and so is closed on every way out.
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    match outcome {
        Ok(received) if received.bytes == 0 => Ok((Received::Ended, None)),
        Ok(received) => {
            let frame = buffer.get(..received.bytes).unwrap_or_default();
            let whole = !received.flags.contains(ReturnFlags::CTRUNC);
            Ok((Received::Frame(frame), whole.then_some(descriptors)))
        }
        Err(Errno::CONNRESET | Errno::PIPE) => Ok((Received::Ended, None)),
        Err(Errno::AGAIN) => Ok((Received::Nothing, None)),
        Err(error) => Err(error),
    }
}

/// Whether a descriptor is an eventfd that does not block.
pub(in crate::wire) fn is_eventfd(descriptor: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    let name = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd()));
    let blocks = rustix::fs::fcntl_getfl(descriptor).map(|flags| !flags.contains(rustix::fs::OFlags::NONBLOCK));
    name.is_ok_and(|name| name.to_str() == Some("anon_inode:[eventfd]")) && blocks == Ok(false)
}
