//! R2.3: the link of streams dies while bytes are under way.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vmbus_devices::multiplex::{Mode, Settings};
use vmbus_simhost::Random;
use vmbus_simhost::device::MultiplexSettings;
use vmbus_tests::LONG;

use crate::world::{Ends, World, bytes, echo, until};

#[test]
fn r2_3_streams_move_and_nothing_is_lost_or_doubled() {
    let world = World::start(10, 3, MultiplexSettings::default(), Settings::default());
    let sent = bytes(10, 600_000);
    std::thread::scope(|scope| {
        let streams: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let stream = world.device.connect(Some(LONG)).unwrap();
                    stream.set_read_timeout(Some(LONG)).unwrap();
                    stream.set_write_timeout(Some(LONG)).unwrap();
                    echo(&stream, &sent).unwrap();
                })
            })
            .collect();
        for index in [1, 2, 3] {
            let before = world.count("received");
            // In the middle of it.
            until(|| world.count("received") > before + 200_000 || world.count("received") >= 8 * 600_000);
            // What the link takes from here on is never read. The others go on meanwhile.
            world.stack.control.command(world.offer(index), "deaf").unwrap();
            let (start, before) = (Instant::now(), world.count("received"));
            until(|| world.count("received") > before + 100_000 || start.elapsed() > Duration::from_millis(50));
            world.rescind(index);
        }
        for stream in streams {
            stream.join().unwrap();
        }
    });
    assert!(world.device.counts().moves > 0 && world.count("moved") > 0, "nothing has moved");
    world.wait_links(1);
    world.wait_forgotten();
    world.end();
}

#[test]
fn r2_4_a_writer_that_waits_on_a_dying_link_goes_on() {
    let world = World::start(11, 1, MultiplexSettings::default(), Settings::default());
    let streams: Vec<_> = (0..2).map(|_| world.device.connect(Some(LONG)).unwrap()).collect();
    let on_it = streams.iter().find(|stream| stream.link().unwrap() == 1).unwrap();
    // Nothing comes back, and what goes there comes to its limit.
    world.stack.control.command(world.offer(0), "hold").unwrap();
    let sent = bytes(11, 400_000);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut writer = on_it;
            writer.write_all(&sent).unwrap();
            on_it.shutdown(std::net::Shutdown::Write).unwrap();
        });
        until(|| world.count("received") >= 64 * 1024);
        world.rescind(1);
        world.stack.control.command(world.offer(0), "go").unwrap();
        let mut back = Vec::new();
        let mut reader = on_it;
        reader.read_to_end(&mut back).unwrap();
        assert!(back == sent);
        writing.join().unwrap();
    });
    assert_eq!(on_it.finish().map_err(|error| error.kind()), Ok(()));
    drop(streams);
    world.wait_forgotten();
    world.end();
}

#[test]
fn r2_3_streams_that_cannot_move_end_with_an_error_that_says_so() {
    let settings = Settings { mode: Mode::Plain, ..Settings::default() };
    let world = World::start(12, 1, MultiplexSettings::default(), settings);
    let streams: Vec<_> = (0..2).map(|_| world.device.connect(Some(LONG)).unwrap()).collect();
    let (lost, left): (Vec<_>, Vec<_>) = streams.into_iter().partition(|stream| stream.link().unwrap() == 1);
    let (lost, left) = (&lost[0], &left[0]);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut reader = lost;
            reader.read(&mut [0; 8])
        });
        world.rescind(1);
        let error = reading.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(error.to_string().contains("channel ended"), "{error}");
    });
    echo(left, &bytes(12, 30_000)).unwrap();
    world.wait_forgotten();
    world.end();
}

/// A link that is offered again is used again.
#[test]
fn r2_3_back_and_forth() {
    let world = World::start(13, 1, MultiplexSettings::default(), Settings::default());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| {
            let mut random = Random::new(13);
            let stream = world.device.connect(Some(LONG)).unwrap();
            let (mut writer, mut reader) = (&stream, &stream);
            let mut moves = 0;
            while !over.load(Ordering::Relaxed) {
                let sent = bytes(random.next_u64(), usize::try_from(random.below(3000)).unwrap() + 1);
                writer.write_all(&sent).unwrap();
                let mut back = vec![0; sent.len()];
                reader.read_exact(&mut back).unwrap();
                assert!(back == sent);
                moves = stream.moves().unwrap();
            }
            stream.finish().unwrap();
            moves
        });
        // Also when this thread finds something wrong.
        let ends = Ends(&over);
        for round in 0..10 {
            let opens = || world.stack.control.counters().unwrap().opens;
            until(|| opens() == 2 + round && world.device.counts().links == 2);
            world.stack.control.reoffer(world.offer(1)).unwrap();
            until(|| opens() == 3 + round);
        }
        drop(ends);
        talking.join().unwrap();
    });
    world.wait_links(2);
    world.wait_forgotten();
    world.end();
}
