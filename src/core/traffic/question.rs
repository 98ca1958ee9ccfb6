//! What `--in-flight` asks, and where.

use crate::core::start::url::Url;
use crate::core::traffic::exposition::Selector;

/// `http://host:port/path#metric{label="x"}`, followed by `-N` if the answer counts the question itself N times.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    pub url: Url,
    pub selector: Selector,
    pub less: u32,
}

impl Question {
    pub fn parse(text: &str) -> Result<Question, &'static str> {
        let (url, metric) = text.split_once('#').unwrap_or((text, ""));
        let url = Url::parse(url)?;
        // Looking a name up could fail or hang while the app is being stopped.
        url.addresses().ok_or("the host must be an address or localhost")?;
        if metric.is_empty() {
            return Err("no metric (append #name or #name{label=\"x\"})");
        }
        let (metric, less) = match metric.rsplit_once('-') {
            Some((metric, less)) if less.bytes().all(|b| b.is_ascii_digit()) && !less.is_empty() => {
                (metric, less.parse().map_err(|_| "too large a number behind the metric")?)
            }
            _ => (metric, 0),
        };
        Ok(Question { url, selector: Selector::parse(metric)?, less })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        let question = Question::parse("http://127.0.0.1:9253/metrics?x=1#phpfpm_active_processes{pool=\"a-1\"}-1").unwrap();
        assert_eq!((question.url.port, &question.url.path[..], question.less), (9253, "/metrics?x=1", 1));
        assert_eq!(question.selector, Selector::parse("phpfpm_active_processes{pool=\"a-1\"}").unwrap());
        assert_eq!(Question::parse("http://localhost#x").unwrap().url.addresses().unwrap().len(), 2);
        assert_eq!(Question::parse("http://[::1]/#x").unwrap().url.addresses().unwrap(), ["[::1]:80".parse().unwrap()]);
        assert_eq!(Question::parse("http://[::1]:81/#x").unwrap().url.addresses().unwrap(), ["[::1]:81".parse().unwrap()]);
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
