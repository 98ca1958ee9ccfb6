//! What a pod's lameduck says at /status, where it can be reached.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use hyper::Request;
use hyper::body::Body;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::objects;
use crate::body::Pieces;
use crate::wire::Wire;

/// For connection and answer together.
const LIMIT: Duration = Duration::from_secs(1);
/// The document has a few kilobytes.
const MOST: usize = 64 * 1024;

/// The phase, and how many requests are in flight. None: nobody answers there, or it is no lameduck.
pub async fn ask(address: SocketAddr) -> Option<(String, u64)> {
    timeout(LIMIT, get(address)).await.ok()?
}

async fn get(address: SocketAddr) -> Option<(String, u64)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = handshake(Wire::of(stream)).await.ok()?;
    let request = Request::get("/status").header(HOST, address.to_string()).body(Pieces::none()).ok()?;
    let exchange = async {
        let mut body = sender.send_request(request).await.ok()?.into_body();
        let mut document = Vec::new();
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            document.extend_from_slice(&frame.ok()?.into_data().ok()?);
            if document.len() > MOST {
                return None;
            }
        }
        objects::status(&document)
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        status = &mut exchange => status,
        // The answer may have come whole before the connection's end.
        _ = &mut connection => exchange.await,
    }
}
