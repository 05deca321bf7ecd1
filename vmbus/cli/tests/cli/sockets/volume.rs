//! Much, both ways at once, through two processes and a host.
//!
//! `VMBUSCTL_FORWARD_MIB=1024 cargo test --profile lab -p vmbusctl --test cli much` moves a GiB each way.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use super::{Host, accept, connect, server};

/// What ordinary runs move each way.
const MIB: u64 = 16;

/// Bytes that each differ, from one number.
struct Stream(u64);

impl Stream {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

fn send(mut to: TcpStream, seed: u64, mib: u64) {
    let (mut stream, mut buffer) = (Stream(seed), vec![0; 1 << 20]);
    for _ in 0..mib {
        stream.fill(&mut buffer);
        to.write_all(&buffer).unwrap();
    }
    to.shutdown(Shutdown::Write).unwrap();
}

fn check(mut from: TcpStream, seed: u64, mib: u64) {
    let (mut stream, mut expected, mut buffer) = (Stream(seed), vec![0; 1 << 20], vec![0; 1 << 20]);
    for number in 0..mib {
        from.read_exact(&mut buffer).unwrap();
        stream.fill(&mut expected);
        assert!(buffer == expected, "MiB {number} of the stream from seed {seed} is another");
    }
    assert_eq!(from.read(&mut buffer).unwrap(), 0, "behind the end");
}

#[test]
fn much_arrives_both_ways_at_once() {
    let mib = std::env::var("VMBUSCTL_FORWARD_MIB").map_or(MIB, |mib| mib.parse().unwrap());
    let (listener, target) = server();
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let (forward, at) = host.forward("tcp:127.0.0.1:0", "vm:5000", &[]);
    let client = connect(at.unwrap());
    let peer = accept(&listener);
    let start = Instant::now();
    let threads =
        [(client.try_clone().unwrap(), peer.try_clone().unwrap(), 1), (peer, client, 2)].map(|(from, to, seed)| {
            [std::thread::spawn(move || send(from, seed, mib)), std::thread::spawn(move || check(to, seed, mib))]
        });
    threads.into_iter().flatten().for_each(|thread| thread.join().unwrap());
    println!("{mib} MiB each way in {:.1} s", start.elapsed().as_secs_f64());
    let closed = forward.wait_for("closed");
    assert_eq!((&closed["there"], &closed["back"]), (&(mib << 20).into(), &(mib << 20).into()));
}
