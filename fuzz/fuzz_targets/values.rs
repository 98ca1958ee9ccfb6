//! Single values of options: durations, signals, ports, peers, URLs. What is read can be written, and is then read as the same.
#![no_main]

use lameduck::core::output::line::Format;
use lameduck::core::signals::{Rewrite, Signal};
use lameduck::core::spelling;
use lameduck::core::start::url::{self, Target, Url};
use lameduck::core::time::{Show, parse_duration};
use lameduck::core::traffic::network::Network;
use lameduck::core::traffic::question::Question;
use libfuzzer_sys::fuzz_target;

fn duration(text: &str) {
    let Ok(length) = parse_duration(text) else { return };
    assert!(length.as_secs() <= 365 * 86_400, "{text:?}");
    assert!(!text.contains(['-', '+', ' ']), "{text:?}");
    // Shown in whole milliseconds.
    let again = parse_duration(&Show(length).to_string()).unwrap_or_else(|why| panic!("{text:?} is {}: {why}", Show(length)));
    assert!(again.abs_diff(length).as_micros() <= 500, "{text:?} is {length:?}, shown as {}", Show(length));
}

fn signal(text: &str) {
    if let Ok(signal) = Signal::parse(text) {
        assert_eq!(Signal::parse(&signal.to_string()), Ok(signal));
        assert_eq!(Signal::from_number(signal.number()), Some(signal));
    }
    if let Ok(rewrite) = Rewrite::parse(text) {
        assert!(rewrite.from.is_forwarded());
        let to = rewrite.to.map_or("0".to_owned(), |to| to.to_string());
        assert_eq!(Rewrite::parse(&format!("{}:{to}", rewrite.from)), Ok(rewrite));
    }
}

fn network(text: &str) {
    let Ok(network) = Network::parse(text) else { return };
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: std::net::IpAddr = address.parse().expect("an address");
    assert!(network.contains(address));
    // The neighbour is only in it if the prefix ends before the last bit.
    let neighbour = match address {
        std::net::IpAddr::V4(v4) => std::net::Ipv4Addr::from_bits(v4.to_bits() ^ 1).into(),
        std::net::IpAddr::V6(v6) => std::net::IpAddr::V6(std::net::Ipv6Addr::from_bits(v6.to_bits() ^ 1)),
    };
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(width, |prefix| prefix.parse::<u8>().expect("a number"));
    assert_eq!(network.contains(neighbour), prefix < width, "{text}");
}

fn requests(text: &str) {
    if let Ok(url) = Url::parse(text) {
        // What goes out is one line: no request behind the request.
        let line = format!("GET {} HTTP/1.0\r\nHost: {}", url.path, url.authority);
        assert!(line.bytes().filter(|byte| *byte == b'\n').count() == 1 && line.split(' ').count() == 4, "{line:?}");
        assert!(url.port > 0 && !url.host.is_empty() && url.path.starts_with('/'));
        let again = Url::parse(&format!("http://{}{}", url.authority, url.path));
        assert_eq!(again, Ok(url));
    }
    match Target::parse(text) {
        Ok(Target::Tcp { host, port }) => assert!(!host.is_empty() && port > 0, "{text}"),
        Ok(Target::Unix { path }) => assert!(path.starts_with('/')),
        Ok(Target::Http(url)) => assert_eq!(Url::parse(text), Ok(url)),
        Err(_) => {}
    }
    if let Ok(question) = Question::parse(text) {
        assert!(question.url.addresses().is_some());
    }
    if let Ok(addresses) = url::listen_addresses(text) {
        assert!(!addresses.is_empty());
    }
}

fuzz_target!(|text: &str| {
    duration(text);
    signal(text);
    network(text);
    requests(text);
    let _ = Format::parse(text);
    let _ = spelling::nearest(text, ["--delay", "LAMEDUCK_DELAY"].into_iter());
});
