//! Where a server and its clients live: one network namespace, or two with some time between them.
#![allow(dead_code)] // each test uses some

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const PORT: u16 = 8080;
/// Node only: TLS, and HTTP/2 in plain text.
pub const TLS_PORT: u16 = 8443;
pub const H2_PORT: u16 = 8081;

pub struct Network {
    pub name: &'static str,
    /// The server's.
    pub address: Ipv4Addr,
    server: Namespace,
    client: Namespace,
    /// The client's ports that no packet reaches or leaves any more; None: the firewall knows.
    cut: Option<Arc<Mutex<HashSet<u16>>>>,
}

struct Namespace(File);

impl Network {
    pub fn loopback() -> Network {
        let server = Namespace::new();
        let client = Namespace(server.0.try_clone().expect("a descriptor"));
        Network { name: "loopback", address: Ipv4Addr::LOCALHOST, server, client, cut: None }
    }

    /// 20 ms there and back.
    pub fn far() -> Network {
        Network::apart("20 ms", Duration::from_millis(10))
    }

    /// Two namespaces, and between them the test itself, which hands on every packet so late: not every kernel has netem.
    pub fn apart(name: &'static str, one_way: Duration) -> Network {
        let (server, client) = (Namespace::new(), Namespace::new());
        let [near, remote] = [(&server, SERVER), (&client, CLIENT)]
            .map(|(end, address)| end.spawn(move || tunnel(address)).join().expect("a tunnel"));
        let cut = Arc::new(Mutex::new(HashSet::new()));
        relay(&near, &remote, one_way, &cut);
        relay(&remote, &near, one_way, &cut);
        Network { name, address: SERVER, server, client, cut: Some(cut) }
    }

    /// Runs a story among the servers: what it spawns is there too.
    pub fn at_server<T: Send + 'static>(&self, story: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.server.spawn(story)
    }

    pub fn at_client<T: Send + 'static>(&self, story: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.client.spawn(story)
    }

    /// The client on this port is gone without a word; to be called among the clients.
    pub fn cut(&self, port: u16) {
        if let Some(cut) = &self.cut {
            cut.lock().unwrap().insert(port);
            return;
        }
        for end in ["--sport", "--dport"] {
            let mut rule = Command::new("iptables");
            rule.args(["-w", "-A", "INPUT", "-p", "tcp", end, &port.to_string(), "-j", "DROP"]);
            assert!(rule.status().expect("iptables").success(), "cannot cut port {port}");
        }
    }
}

impl Namespace {
    fn new() -> Namespace {
        let born = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run the tests as root (tests/run does)");
            ip("link set lo up");
            Namespace(File::open("/proc/thread-self/ns/net").expect("/proc"))
        });
        born.join().expect("a network namespace")
    }

    fn spawn<T: Send + 'static>(&self, story: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = self.0.try_clone().expect("a descriptor");
        thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
            story()
        })
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("ip, from iproute2");
    assert!(status.success(), "ip {words}");
}

/// A device of this namespace whose packets are read and written here.
fn tunnel(address: Ipv4Addr) -> File {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    // SAFETY: plain memory, long enough for the name, that the call only reads and writes.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (place, letter) in request.ifr_name.iter_mut().zip(b"far") {
            *place = *letter as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        let made = libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request);
        assert_eq!(made, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    }
    ip(&format!("addr add {address}/24 dev far"));
    ip("link set far up");
    file
}

/// Both threads end with the device, and that ends with its namespace.
fn relay(from: &File, to: &File, one_way: Duration, cut: &Arc<Mutex<HashSet<u16>>>) {
    let (mut from, mut to) = (from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor"));
    let cut = cut.clone();
    let (sender, packets) = channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = from.read(&mut buffer) {
            let packet = &buffer[..length];
            if ports(packet).is_some_and(|ports| ports.iter().any(|port| cut.lock().unwrap().contains(port))) {
                continue;
            }
            if sender.send((Instant::now() + one_way, packet.to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, packet) in packets {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // A full queue drops, as wires do.
            let _ = to.write(&packet);
        }
    });
}

/// Source and destination port of IPv4.
fn ports(packet: &[u8]) -> Option<[u16; 2]> {
    let start = usize::from(packet.first()? & 0xf) * 4;
    let ports = packet.get(start..start + 4)?;
    (packet[0] >> 4 == 4).then(|| [u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]])])
}
