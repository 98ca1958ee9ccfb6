//! A server as there are many: it keeps connections alive, some requests take long, and on TERM it is gone.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::body::Pieces;
use crate::wire::Wire;

/// In the rehearsal's own network, where every port is free.
pub const PORT: u16 = 8080;
const WORK: Duration = Duration::from_millis(50);
const STORE: Duration = Duration::from_millis(150);
const SLOW: Duration = Duration::from_millis(1200);
const STREAM_EACH: Duration = Duration::from_millis(150);

/// Serves until TERM; what is in flight then is cut.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("legacy server: cannot serve port {PORT}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(("127.0.0.1", PORT)).await?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(talk(stream));
                }
            }
        }
    }
}

async fn talk(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = http1::Builder::new().serve_connection(Wire::of(stream), service_fn(answer)).await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Pieces>, Infallible> {
    let body = match request.uri().path() {
        "/" => {
            sleep(WORK).await;
            Pieces::whole("served\n")
        }
        "/slow" => {
            sleep(SLOW).await;
            Pieces::whole("thought about\n")
        }
        "/upload" => {
            let mut body = request.into_body();
            let mut body = std::pin::Pin::new(&mut body);
            while let Some(Ok(_)) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {}
            sleep(STORE).await;
            Pieces::whole("stored\n")
        }
        "/stream" => Pieces::stream(Bytes::from_static(b"one more line\n"), 8, STREAM_EACH),
        _ => {
            let mut answer = Response::new(Pieces::whole("no such page\n"));
            *answer.status_mut() = StatusCode::NOT_FOUND;
            return Ok(answer);
        }
    };
    Ok(Response::new(body))
}
