//! Plain http:// URLs, and what can be waited for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// For the Host header.
    pub authority: String,
    pub path: String,
}

impl Url {
    pub fn parse(text: &str) -> Result<Url, &'static str> {
        let rest = text.strip_prefix("http://").ok_or("not a plain http:// URL")?;
        if text.chars().any(|c| c.is_control() || c == ' ' || !c.is_ascii()) {
            return Err("blanks and control characters must be written %20 and so on");
        }
        let rest = rest.split('#').next().unwrap_or(rest);
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |end| rest.split_at(end));
        if authority.contains('@') {
            return Err("a user in the URL is not supported");
        }
        let (host, port) = host_and_port(authority, Some(80))?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Url { host, port, authority: authority.to_owned(), path })
    }

    pub fn addresses(&self) -> Option<Vec<SocketAddr>> {
        addresses(&self.host, self.port)
    }
}

/// Where that is without asking a name service: an address or `localhost`, which may be either family's.
pub fn addresses(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if host == "localhost" {
        return Some(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    host.parse::<IpAddr>().ok().map(|host| vec![(host, port).into()])
}

/// Where to listen: `:9102` is every address, of both families where there are two.
pub fn listen_addresses(text: &str) -> Result<Vec<SocketAddr>, &'static str> {
    const WHAT: &str = "not an address with a port (try :9102 or 127.0.0.1:9102)";
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit())).ok_or(WHAT)?;
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]);
    }
    let text = text.strip_prefix("localhost:").map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map(|address| vec![address]).map_err(|_| WHAT)
}

/// `host:port` or `[address]:port`.
fn host_and_port(text: &str, default: Option<u16>) -> Result<(String, u16), &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok().filter(|port| *port > 0),
        Some(_) => None,
        None => default,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(address) => _ = address.parse::<Ipv6Addr>().map_err(|_| "not an IPv6 address in the brackets")?,
        None if host.contains(':') => return Err("an IPv6 address needs brackets"),
        None if host.is_empty() || host.contains(['[', ']', '/']) => return Err("no host"),
        None => {}
    }
    Ok((bare.unwrap_or(host).to_owned(), port.ok_or("no port, or not one")?))
}

/// What `--wait-for` waits for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// A connection is accepted.
    Tcp {
        host: String,
        port: u16,
    },
    Unix {
        path: String,
    },
    /// The answer is 2xx.
    Http(Url),
}

impl Target {
    pub fn parse(text: &str) -> Result<Target, &'static str> {
        if let Some(rest) = text.strip_prefix("tcp://") {
            let (host, port) = host_and_port(rest.strip_suffix('/').unwrap_or(rest), None)?;
            return Ok(Target::Tcp { host, port });
        }
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Target::Unix { path: path.to_owned() }),
                false => Err("the path of a unix socket must be whole (unix:///run/x.sock)"),
            };
        }
        match text.starts_with("http://") {
            true => Url::parse(text).map(Target::Http),
            false => Err("not tcp://host:port, http://host/path or unix:///path"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = |text| Url::parse(text).map(|url| (url.host, url.port, url.path));
        let known = |host: &str, port, path: &str| Ok((host.to_owned(), port, path.to_owned()));
        assert_eq!(url("http://a"), known("a", 80, "/"));
        assert_eq!(url("http://a.b:81/x?y=1#z"), known("a.b", 81, "/x?y=1"));
        assert_eq!(url("http://a?y"), known("a", 80, "/?y"));
        assert_eq!(url("http://[::1]:81/"), known("::1", 81, "/"));
        assert_eq!(Url::parse("http://[::1]:81/").unwrap().authority, "[::1]:81");
        for text in [
            "",
            "a",
            "https://a",
            "http://",
            "http://:80/",
            "http://a:0",
            "http://a:65536",
            "http://a:x",
            "http://a:/",
            "http://a b",
            "http://::1/",
            "http://[a]/",
            "http://u:p@a/",
            "http://ä/",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Url::parse("http://localhost:1").unwrap().addresses().unwrap().len(), 2);
        assert_eq!(Url::parse("http://db:1").unwrap().addresses(), None);
    }

    #[test]
    fn addresses_to_listen_on() {
        let addresses = |text| listen_addresses(text).map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(addresses(":9102").unwrap(), ["[::]:9102", "0.0.0.0:9102"]);
        assert_eq!(addresses("127.0.0.1:0").unwrap(), ["127.0.0.1:0"]);
        assert_eq!(addresses("[::1]:1").unwrap(), ["[::1]:1"]);
        assert_eq!(addresses("localhost:1").unwrap(), ["127.0.0.1:1"]);
        for text in ["", ":", "9102", ":x", ":+1", ":65536", "127.0.0.1", "host:1", "::1:1x"] {
            assert!(listen_addresses(text).is_err(), "{text}");
        }
    }

    #[test]
    fn targets() {
        let tcp = |host: &str, port| Ok(Target::Tcp { host: host.to_owned(), port });
        assert_eq!(Target::parse("tcp://db:5432"), tcp("db", 5432));
        assert_eq!(Target::parse("tcp://[fe80::1]:1"), tcp("fe80::1", 1));
        assert_eq!(Target::parse("unix:///run/x.sock"), Ok(Target::Unix { path: "/run/x.sock".to_owned() }));
        assert!(matches!(Target::parse("http://db/ready"), Ok(Target::Http(_))));
        for text in [
            "",
            "db:5432",
            "tcp://db",
            "tcp://",
            "tcp://db:5432/x",
            "unix://x",
            "unix:/x",
            "https://db",
            "udp://db:1",
            "tcp://db:",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }
}
