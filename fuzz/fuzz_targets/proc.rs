//! What /proc and /sys/fs/cgroup say: socket tables, stat, cmdline, mounts, counters, cgroups.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use lameduck::core::servers;
use lameduck::core::signals::Signal;
use lameduck::core::size::{cgroup, cpu};
use lameduck::core::traffic::row::State;
use lameduck::sys::cgroup::upwards;
use lameduck::sys::{proc, unix_diag};
use libfuzzer_sys::fuzz_target;

/// Whatever a process calls itself, its stat is read.
fn stat(name: &str, pid: i32, parent: i32) {
    let text = format!("{pid} ({name}) R {parent} 1 1 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 12345 999 1");
    let process = proc::parse_stat(&text).expect("a process");
    assert_eq!((process.pid, process.parent, process.state, process.started), (pid, parent, b'R', 12345), "{text:?}");
    assert_eq!(proc::parse_cpu_ticks(&text), Some(127));
}

/// As the kernel writes it (get_tcp4_sock).
fn tcp(fields: [u8; 16]) {
    let [a, b, c, d, p, q, r, s, wqueue, rqueue, retransmits, inode, inode2, ping_pong, timer, state] = fields;
    let state = state % 11 + 1;
    let local = u32::from_ne_bytes([127, 0, 0, 1]);
    let remote = u32::from_ne_bytes([a, b, c, d]);
    let (port, peer_port) = (u16::from_be_bytes([p, q]), u16::from_be_bytes([r, s]));
    let inode = u32::from(inode) << 20 | u32::from(inode2);
    let line = format!(
        "{:4}: {local:08X}:{port:04X} {remote:08X}:{peer_port:04X} {state:02X} {wqueue:08X}:{rqueue:08X} {timer:02X}:{timer:08X} {retransmits:08X} {:5} {:8} {inode} 1 0000000000000000 {timer} {timer} {} 10 -1",
        1, 33, 0, ping_pong
    );
    let row = proc::parse_tcp(&line).expect("a row");
    assert_eq!((row.port, row.peer, row.peer_port), (port, IpAddr::V4(Ipv4Addr::new(a, b, c, d)), peer_port), "{line}");
    assert_eq!((row.wqueue, row.rqueue, row.inode), (wqueue.into(), rqueue.into(), inode), "{line}");
    assert_eq!(row.retransmits, retransmits);
    assert_eq!(row.ping_pong(), if state == 1 { Some(ping_pong & 1 == 1) } else { None }, "{line}");
    assert_eq!(row.state == State::Established, state == 1);
}

fn directories(table: &str) {
    for wanted in ["", "cpu", "memory"] {
        let is_wanted = |controllers: &str| {
            if wanted.is_empty() { controllers.is_empty() } else { controllers.split(',').any(|one| one == wanted) }
        };
        let directories = upwards("/mount", table, is_wanted);
        assert_eq!(directories.last().map(String::as_str), Some("/mount"), "{table:?}");
        // Never outside, and each in the one before it.
        assert!(directories.iter().all(|directory| directory.split('/').all(|part| part != "..")), "{table:?}");
        assert!(directories.windows(2).all(|two| two[0].len() > two[1].len() && two[0].starts_with(&two[1])), "{table:?}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        let _ = (proc::parse_tcp(line), proc::parse_udp(line), proc::parse_inode(line, 9));
    }
    bytes.split(|byte| *byte == b'\n').for_each(|line| _ = unix_diag::parse(line));
    let _ = (proc::parse_stat(&text), proc::parse_cpu_ticks(&text));
    let _ = (
        proc::parse_passive_opens(&text),
        proc::parse_orphans(&text),
        proc::parse_written(&text),
        proc::parse_port_range(&text),
        proc::parse_hidepid(&text),
    );
    let _ = proc::parse_netlink_drops(&text, 7);
    let _ = (cpu::parse_cpu_max(&text), cgroup::memory_limit(&text));
    if let Ok(number) = text.trim().parse() {
        let _ = (
            cpu::shares_to_request(number),
            cpu::weight_to_request(number, None),
            cpu::weight_to_request(number, Some(cpu::Millicores(4000))),
        );
    }
    assert!(proc::is_within(&text, &text));
    directories(&text);
    let _ = (servers::recognise_running(&text), servers::is_shell(&text), servers::is_init(&text));
    let _ = servers::may_stop_on(&text, Signal::QUIT);
    let words: Vec<&str> = text.split(' ').collect();
    let _ = servers::recognise(&words);

    if let Some((fields, rest)) = bytes.split_first_chunk() {
        tcp(*fields);
        let [a, b, ..] = *fields;
        stat(&String::from_utf8_lossy(rest), i32::from(a) * 1000, i32::from(b) * 1000);
    }
});
