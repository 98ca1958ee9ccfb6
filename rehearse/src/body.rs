//! A body that comes in pieces, with pauses between them: uploads and streams that trickle, and whole ones at once.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

#[derive(Debug)]
pub struct Pieces {
    piece: Bytes,
    left: usize,
    every: Duration,
    /// Whether the length is said beforehand.
    sized: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pieces {
    pub fn none() -> Pieces {
        Pieces::trickle(Bytes::new(), 0, Duration::ZERO)
    }

    pub fn whole(piece: impl Into<Bytes>) -> Pieces {
        Pieces::trickle(piece.into(), 1, Duration::ZERO)
    }

    /// As often as `count`, with its length said beforehand.
    pub fn trickle(piece: Bytes, count: usize, every: Duration) -> Pieces {
        Pieces { piece, left: count, every, sized: true, pause: None }
    }

    /// The same, in chunks.
    pub fn stream(piece: Bytes, count: usize, every: Duration) -> Pieces {
        Pieces { sized: false, ..Pieces::trickle(piece, count, every) }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        if self.left > 0 {
            self.pause = Some(Box::pin(sleep(self.every)));
        }
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized { SizeHint::with_exact((self.left * self.piece.len()) as u64) } else { SizeHint::default() }
    }
}
