//! What is asked from outside: the admin address, how readiness is checked, the warm-up requests.

use std::net::SocketAddr;

use super::{Reader, Refused, Result, Source, flag};
use crate::cli::{Args, Verb};
use crate::core::start::url::{self, Target, Url};

/// Where `health` and `status` ask if no address is given.
const USUAL_ADDRESS: &str = "127.0.0.1:9102";

#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// The address as it was written, and the socket addresses to try. None: off.
    pub admin: Option<(String, Vec<SocketAddr>)>,
    pub ready: Ready,
    pub warm_up: Option<WarmUp>,
    /// `/readyz` goes on asking the app while lame duck.
    pub pass_on_stop: bool,
    /// For `lameduck health`: ask whether lameduck is alive, not whether the app is ready.
    pub live: bool,
}

/// How `/readyz` asks the app.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Ready {
    #[default]
    Listens,
    Answers(Target),
    /// A command that must exit with 0.
    Says(Vec<String>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WarmUp {
    pub url: Url,
    pub requests: u32,
}

pub fn outside(reader: &mut Reader<'_>, args: &Args, verb: Verb, in_kubernetes: bool) -> Result<Outside> {
    let mut outside = Outside::default();
    if let Some(given) = reader.given("admin", args.outside.admin.as_deref())? {
        let addresses = url::listen_addresses(&given.text).map_err(|why| given.cannot("admin address", why))?;
        outside.admin = Some((given.text.clone(), addresses));
        reader.show("admin", &given.text, given.source);
    } else if matches!(verb, Verb::Health | Verb::Status) {
        outside.admin = url::listen_addresses(USUAL_ADDRESS).ok().map(|addresses| (USUAL_ADDRESS.to_owned(), addresses));
    }
    if let Some(given) = reader.given("ready", args.outside.ready.as_deref())? {
        outside.ready = ready(&given.text).map_err(|why| given.cannot("readiness", why))?;
        reader.show("ready", &given.text, given.source);
    }
    if let Some(given) = reader.given("warm-up", args.outside.warm_up.as_deref())? {
        outside.warm_up = Some(warm_up(&given.text).map_err(|why| given.cannot("warm-up", why))?);
        reader.show("warm-up", &given.text, given.source);
    }
    outside.pass_on_stop = pass_on_stop(reader, args, in_kubernetes, outside.admin.is_some() && verb != Verb::Health)?;
    if args.health.live && verb != Verb::Health {
        return Err(Refused::Usage("cannot use --live: it belongs to lameduck health; write health before it".to_owned()));
    }
    outside.live = verb == Verb::Health && flag(reader, "live", args.health.live)?;
    Ok(outside)
}

/// Whether `/readyz` goes on passing at the stop. In Kubernetes the deletion itself takes the pod out of the ready endpoints, and
/// kube-proxy falls back to terminating pods that still serve. Elsewhere a balancer learns of the stop by this check.
fn pass_on_stop(reader: &mut Reader<'_>, args: &Args, in_kubernetes: bool, is_shown: bool) -> Result<bool> {
    let (pass, source) = match reader.given("readyz-on-stop", args.outside.readyz_on_stop.as_deref())? {
        Some(given) if given.text == "fail" => (false, given.source),
        Some(given) if given.text == "pass" => (true, given.source),
        Some(given) if given.text != "auto" => return Err(given.cannot("readyz-on-stop", "not auto, fail or pass")),
        _ if in_kubernetes => (true, Source::Default("auto: Kubernetes takes a deleted pod out of the endpoints by itself")),
        _ => (false, Source::Default("auto: not in Kubernetes; the check is how a balancer learns")),
    };
    if is_shown {
        reader.show("readyz-on-stop", if pass { "pass" } else { "fail" }, source);
    }
    Ok(pass)
}

fn ready(text: &str) -> std::result::Result<Ready, &'static str> {
    if let Some(command) = text.strip_prefix("exec:") {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        return if words.is_empty() { Err("no command behind exec:") } else { Ok(Ready::Says(words)) };
    }
    Target::parse(text).map(Ready::Answers).map_err(|_| "not http://host/path, tcp://host:port, unix:///path or exec:command")
}

/// Reads `URL[*N]`.
fn warm_up(text: &str) -> std::result::Result<WarmUp, &'static str> {
    let (url, requests) = match text.rsplit_once('*') {
        Some((url, count)) if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) => {
            (url, count.parse().map_err(|_| "too many requests")?)
        }
        _ => (text, 1),
    };
    match requests {
        0 => Err("no requests"),
        _ => Ok(WarmUp { url: Url::parse(url)?, requests }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_be_ready() {
        assert!(matches!(ready("http://127.0.0.1:8080/ready"), Ok(Ready::Answers(Target::Http(_)))));
        assert!(matches!(ready("tcp://db:1"), Ok(Ready::Answers(Target::Tcp { .. }))));
        assert_eq!(ready("exec:/bin/ok  -x"), Ok(Ready::Says(vec!["/bin/ok".to_owned(), "-x".to_owned()])));
        for text in ["", "exec:", "https://x", "file:///x"] {
            assert!(ready(text).is_err(), "{text}");
        }
    }

    #[test]
    fn warm_ups() {
        assert_eq!(warm_up("http://a/x*50").map(|warm| (warm.url.path, warm.requests)), Ok(("/x".to_owned(), 50)));
        assert_eq!(warm_up("http://a/x").map(|warm| warm.requests), Ok(1));
        assert_eq!(warm_up("http://a/*").map(|warm| (warm.url.path, warm.requests)), Ok(("/*".to_owned(), 1)));
        for text in ["", "a*5", "http://a*0", "http://a*99999999999", "https://a*5"] {
            assert!(warm_up(text).is_err(), "{text}");
        }
    }
}
