//! What `--in-flight` asks, and of whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::exposition::Selector;

/// `http://host:port/path#metric{label="x"}`, and `-N` behind it where the answer counts the question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// None: `localhost`, which may be either family's.
    host: Option<IpAddr>,
    pub port: u16,
    /// For the Host header.
    pub authority: String,
    pub path: String,
    pub selector: Selector,
    pub less: u32,
}

impl Question {
    pub fn parse(text: &str) -> Result<Question, &'static str> {
        let rest = text.strip_prefix("http://").ok_or("not a plain http:// URL")?;
        let (url, metric) = rest.split_once('#').ok_or("no metric (append #name or #name{label=\"x\"})")?;
        let (authority, path) = url.find('/').map_or((url, "/"), |slash| url.split_at(slash));
        if url.chars().any(|c| c.is_control() || c == ' ' || !c.is_ascii()) {
            return Err("blanks and control characters must be written %20 and so on");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| "not a port")?),
            _ => (authority, 80),
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host) {
            "localhost" => None,
            // A name would have to be looked up while the app is dying.
            address => Some(address.parse().map_err(|_| "the host must be an address or localhost")?),
        };
        let (metric, less) = match metric.rsplit_once('-') {
            Some((metric, less)) if less.bytes().all(|b| b.is_ascii_digit()) && !less.is_empty() => {
                (metric, less.parse().map_err(|_| "too large a number behind the metric")?)
            }
            _ => (metric, 0),
        };
        let selector = Selector::parse(metric)?;
        Ok(Question { host, port, authority: authority.to_owned(), path: path.to_owned(), selector, less })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self.host {
            Some(host) => vec![(host, self.port).into()],
            None => vec![(Ipv4Addr::LOCALHOST, self.port).into(), (Ipv6Addr::LOCALHOST, self.port).into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        let question = Question::parse("http://127.0.0.1:9253/metrics?x=1#phpfpm_active_processes{pool=\"a-1\"}-1").unwrap();
        assert_eq!((question.port, &question.path[..], question.less), (9253, "/metrics?x=1", 1));
        assert_eq!(question.selector, Selector::parse("phpfpm_active_processes{pool=\"a-1\"}").unwrap());
        assert_eq!(Question::parse("http://localhost#x").unwrap().addresses().len(), 2);
        assert_eq!(Question::parse("http://[::1]/#x").unwrap().addresses(), ["[::1]:80".parse().unwrap()]);
        assert_eq!(Question::parse("http://[::1]:81/#x").unwrap().addresses(), ["[::1]:81".parse().unwrap()]);
        for text in [
            "",
            "https://1.2.3.4/#x",
            "http://1.2.3.4/",
            "http://example.org/#x",
            "http://1.2.3.4:x/#y",
            "http://1.2.3.4/ a#x",
            "http://1.2.3.4/#",
            "http://1.2.3.4/#a b",
            "http://1.2.3.4/#-1",
        ] {
            assert!(Question::parse(text).is_err(), "{text:?}");
        }
    }
}
