//! `lameduck health` and `lameduck status`: a question to the lameduck that runs here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::core::start::url::Url;
use crate::http;
use crate::plan::Plan;

/// Longer than it takes to find out whether an app is ready.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_BYTES: usize = 1 << 20;

/// The status and the body of the answer.
pub async fn ask(plan: &Plan, path: &str) -> Result<(u16, String), String> {
    let Some((text, addresses)) = &plan.outside.admin else { return Err("there is no admin address".to_owned()) };
    let asking = async {
        let mut why = "there is no admin address".to_owned();
        for address in addresses.iter().flat_map(|address| reachable(*address)) {
            match http::connect(&address.ip().to_string(), address.port(), None).await {
                Ok(stream) => {
                    let authority = address.to_string();
                    let url = Url { host: String::new(), port: address.port(), authority, path: path.to_owned() };
                    let answer = http::get(&stream, &url).await?;
                    let status = answer.status;
                    let mut body = Vec::new();
                    let take = |bytes: &[u8]| {
                        body.extend_from_slice(bytes);
                        Ok(())
                    };
                    answer.body(MOST_BYTES, take).await?;
                    return Ok((status, String::from_utf8_lossy(&body).into_owned()));
                }
                Err(error) => why = error,
            }
        }
        Err(why)
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    answer.map_err(|why| format!("cannot ask {text}: {why}; is lameduck running there with --admin?"))
}

/// Who listens on every address is asked over loopback.
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let host: &[IpAddr] = match address.ip() {
        IpAddr::V4(any) if any.is_unspecified() => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        IpAddr::V6(any) if any.is_unspecified() => &[IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)],
        _ => return vec![address],
    };
    host.iter().map(|host| (*host, address.port()).into()).collect()
}

/// A drawn status with its phase, the first word, in a colour: green while serving, yellow until the stop signal is sent, then red.
pub fn in_colour(drawn: &str) -> String {
    let (phase, rest) = drawn.split_at(drawn.find(' ').unwrap_or_default());
    let colour = match phase {
        "serving" => "32",
        "lame-duck" | "draining" => "33",
        _ => "31",
    };
    format!("\x1b[1;{colour}m{phase}\x1b[0m{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_is_in_colour() {
        assert_eq!(in_colour("lame-duck  for 3s\napp x\n"), "\x1b[1;33mlame-duck\x1b[0m  for 3s\napp x\n");
    }
}
