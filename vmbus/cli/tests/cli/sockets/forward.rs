//! `vmbusctl forward` and `echo`: web pages, keystrokes, many at once, resets and refusals, an orderly end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Command;

use super::{Host, accept, connect, hear, is_reset, reset, say, server};
use crate::process::Process;

/// A web server with one page, for so many requests.
fn serve_page(listener: TcpListener, page: Vec<u8>, requests: usize) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for _ in 0..requests {
            let mut client = accept(&listener);
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map(|line| line.unwrap());
            assert!(lines.next().unwrap().starts_with("GET /page "));
            assert!(lines.any(|line| line.is_empty()));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len());
            client.write_all(head.as_bytes()).unwrap();
            client.write_all(&page).unwrap();
        }
    })
}

#[test]
fn a_web_page_comes_through() {
    let page: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
    let curl = Command::new("curl").arg("--version").output().is_ok();
    let (listener, target) = server();
    let serving = serve_page(listener, page.clone(), 1 + usize::from(curl));
    let host = Host::start(&[&format!("80={target}")], &[]);
    let (forward, at) = host.forward("tcp:127.0.0.1:0", "vm:80", &[]);
    let at = at.unwrap();
    let mut client = connect(at);
    client.write_all(b"GET /page HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    let answer = hear(&client);
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(answer[body..] == page);
    if curl {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "60", &format!("http://{at}/page")])
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == page);
    } else {
        println!("skipped: there is no curl on this machine; the client above did the same");
    }
    serving.join().unwrap();
    drop(client);
    let closed = forward.wait_for("closed");
    assert!(closed["back"].as_u64().unwrap() > 3 << 20, "{closed}");
}

/// As somebody at a remote shell does: each keystroke is answered before the next. The guest listens.
#[test]
fn keystrokes_do_not_stall() {
    let (listener, target) = server();
    let host = Host::start(&[], &[22]);
    let (_forward, _) = host.forward("vm:22", &target, &[]);
    let mut client = connect(host.published[0]);
    let mut shell = accept(&listener);
    for round in 0..500_u32 {
        let [key, ..] = round.to_le_bytes();
        let mut heard = [0];
        client.write_all(&[key]).unwrap();
        shell.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [key]);
        shell.write_all(&[key, b'!']).unwrap();
        let mut shown = [0; 2];
        client.read_exact(&mut shown).unwrap();
        assert_eq!(shown, [key, b'!']);
    }
    // A line is longer, and its end is the session's.
    say(&client, b"exit\n");
    assert_eq!(hear(&shell), b"exit\n");
    say(&shell, b"bye\n");
    assert_eq!(hear(&client), b"bye\n");
}

#[test]
fn many_at_once_and_more_wait() {
    let host = Host::start(&["7=echo"], &[]);
    let path = host.file("socket");
    let from = format!("unix:{}", path.display());
    let (forward, _) = host.forward(&from, "vm:7", &["--connections", "4"]);
    let clients: Vec<_> = (0..24_u8)
        .map(|number| {
            let mut client = UnixStream::connect(&path).unwrap();
            std::thread::spawn(move || {
                let bytes = vec![number; 100_000];
                let (mut writer, sent) = (client.try_clone().unwrap(), bytes.clone());
                let writing = std::thread::spawn(move || {
                    writer.write_all(&sent).unwrap();
                    writer.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let mut back = Vec::new();
                client.read_to_end(&mut back).unwrap();
                writing.join().unwrap();
                assert!(back == bytes);
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    // Those that were there at a time, as it told.
    let (mut now, mut most, mut over) = (0, 0, 0);
    while over < 24 {
        match forward.event()["event"].as_str().unwrap() {
            "connected" => now += 1,
            "closed" => (now, over) = (now - 1, over + 1),
            other => panic!("{other}"),
        }
        most = most.max(now);
    }
    assert!((2..=4).contains(&most), "{most} at a time");
}

#[test]
fn resets_are_carried_over_either_way() {
    let (listener, target) = server();
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let (forward, at) = host.forward("tcp:127.0.0.1:0", "vm:5000", &[]);
    for client_resets in [true, false] {
        let mut client = connect(at.unwrap());
        let mut peer = accept(&listener);
        client.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
        if client_resets {
            reset(client);
            is_reset(&peer);
        } else {
            reset(peer);
            is_reset(&client);
        }
        assert_eq!(forward.wait_for("reset")["there"], 1);
    }
}

#[test]
fn who_cannot_be_carried_on_is_reset_and_the_next_is_served() {
    let (listener, target) = server();
    let at_target = listener.local_addr().unwrap();
    drop(listener);
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let (forward, at) = host.forward("tcp:127.0.0.1:0", "vm:5000", &[]);
    is_reset(&connect(at.unwrap()));
    let refused = forward.wait_for("refused");
    assert!(
        refused["error"].as_str().unwrap().contains("cannot connect to vm:5000: nobody listens there"),
        "{refused}"
    );
    let listener = TcpListener::bind(at_target).unwrap();
    let client = connect(at.unwrap());
    say(&accept(&listener), b"now");
    assert_eq!(hear(&client), b"now");
}

#[test]
fn a_signal_ends_it_and_fakes_no_end_of_a_stream() {
    let (listener, target) = server();
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let path = host.file("socket");
    for from in ["tcp:127.0.0.1:0".to_owned(), format!("unix:{}", path.display())] {
        let (mut forward, at) = host.forward(&from, "vm:5000", &[]);
        let client = at.map(connect);
        let other = if at.is_none() { Some(UnixStream::connect(&path).unwrap()) } else { None };
        let peer = accept(&listener);
        forward.wait_for("connected");
        forward.signal("TERM");
        is_reset(&peer);
        client.iter().for_each(is_reset);
        forward.wait_for("ended");
        assert_eq!(forward.end().code(), Some(0));
        drop(other);
    }
    assert!(!path.exists());
}

#[test]
fn an_echo_service_echoes_until_a_signal() {
    let host = Host::start(&[], &[7]);
    let mut echo = Process::start(&["echo", "7", "--json", "--link", &host.path()]);
    assert_eq!(echo.event(), serde_json::json!({"event": "listening", "from": "vm:any:7"}));
    let client = connect(host.published[0]);
    say(&client, b"again");
    assert_eq!(hear(&client), b"again");
    assert_eq!(echo.wait_for("closed")["there"], 5);
    let idle = connect(host.published[0]);
    echo.wait_for("connected");
    echo.signal("INT");
    is_reset(&idle);
    echo.wait_for("ended");
    assert_eq!(echo.end().code(), Some(0));
}
