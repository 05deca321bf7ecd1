//! The exchange over a pair of Unix sockets, and that both ends of a real connection count alike.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use super::bench::{self, Messages};
use super::stream::{Stream, Sums, echo, exchange};

impl Stream for UnixStream {
    fn read(&self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let mut stream = self;
        Read::read(&mut stream, bytes)
    }

    fn write_all(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut stream = self;
        Write::write_all(&mut stream, bytes)
    }

    fn finish(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[test]
fn what_is_sent_comes_back_and_both_ends_count_alike() {
    for bytes in [0, 1, 251, 100_000] {
        let (here, there) = UnixStream::pair().unwrap();
        let (mine, other) = thread::scope(|scope| {
            let other = scope.spawn(|| echo(&there).unwrap());
            (exchange(&here, bytes).unwrap(), other.join().unwrap())
        });
        assert_eq!(mine, other);
        let checksum = (0..bytes).fold(0_u64, |sum, place| sum.wrapping_add(place * (place % 251)));
        assert_eq!(mine, Sums { sent: bytes, received: bytes, checksum, is_pattern: true });
    }
}

#[test]
fn a_byte_too_few_or_another_is_noticed() {
    for (reply, complaint) in
        [(&[0, 1, 2, 3][..], "5 bytes were sent, 4 came back"), (&[0, 1, 2, 4, 4], "not all as they were")]
    {
        let (here, there) = UnixStream::pair().unwrap();
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                let mut all = [0; 5];
                (&there).read_exact(&mut all).unwrap();
                Stream::write_all(&there, reply).unwrap();
                there.finish().unwrap();
            });
            exchange(&here, 5).unwrap_err()
        });
        assert!(error.to_string().contains(complaint), "{error}");
    }
}

#[test]
fn messages_are_timed_and_checked() {
    for (bytes, batch) in [(64, 1), (8, 4), (1000, 16)] {
        let (here, there) = UnixStream::pair().unwrap();
        let messages = Messages { seconds: 0.0, count: Some(200), bytes, batch };
        let end = thread::scope(|scope| {
            scope.spawn(|| echo(&there));
            let end = bench::run(&here, &messages);
            here.finish().unwrap();
            end.unwrap()
        });
        assert_eq!((end["sent"].as_u64(), end["received"].as_u64()), (Some(200), Some(200)), "{end}");
        assert!(end["round_trip_ns"]["p50"].is_u64(), "{end}");
    }
    let (here, there) = UnixStream::pair().unwrap();
    Stream::write_all(&there, &[7; 64]).unwrap();
    let messages = Messages { seconds: 0.0, count: Some(1), bytes: 64, batch: 1 };
    assert!(bench::run(&here, &messages).unwrap_err().to_string().contains("reply 0 is not"));
}
