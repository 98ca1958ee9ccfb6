//! A connection as hyper takes it. It counts what came, so that an answer that was cut is told from one that never began, and reads as
//! slowly as it is asked to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Sleep, sleep};

/// What a slow reader takes at once, and its receive buffer.
const SIP: usize = 1024;

#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    read: Arc<AtomicU64>,
    /// Between two sips, of a slow reader.
    pause: Option<Duration>,
    resting: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// Each client has an address of its own, as nodes and proxies have.
    pub async fn connect(server: SocketAddr, client: usize, pause: Option<Duration>) -> io::Result<Wire> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if matches!(server.ip(), IpAddr::V4(address) if address.is_loopback()) {
            let [high, low] = u16::try_from(client + 1).unwrap_or(1).to_be_bytes();
            socket.bind((Ipv4Addr::new(127, 77, high, low), 0).into())?;
        }
        if pause.is_some() {
            socket.set_recv_buffer_size(SIP as u32)?;
        }
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Wire { pause, ..Wire::of(stream) })
    }

    pub fn of(stream: TcpStream) -> Wire {
        Wire { stream, read: Arc::default(), pause: None, resting: None }
    }

    /// Bytes that came, so far and from now on.
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if let Some(resting) = &mut wire.resting {
            ready!(resting.as_mut().poll(context));
            wire.resting = None;
        }
        let mut space = [0; 16 * 1024];
        let most = into.remaining().min(if wire.pause.is_some() { SIP } else { space.len() });
        let mut buffer = ReadBuf::new(&mut space[..most]);
        ready!(Pin::new(&mut wire.stream).poll_read(context, &mut buffer))?;
        let came = buffer.filled();
        into.put_slice(came);
        wire.read.fetch_add(came.len() as u64, Ordering::Relaxed);
        wire.resting = wire.pause.filter(|_| !came.is_empty()).map(|pause| Box::pin(sleep(pause)));
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
