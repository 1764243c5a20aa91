//! A stream that does not wait for its peer for ever.
//!
//! A client that has begun to send must have earned an answer, and taken it, before the time for one exchange is over: slow heads, bodies
//! without end and answers that nobody reads all end there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a peer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte read to the next one written.
    pub(super) exchange: Duration,
    /// From a byte written to the next one read. The server looks after this one itself, except when the start of a request is left over.
    pub(super) idle: Duration,
}

#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    patience: Patience,
    deadline: Instant,
    /// Something was read since the last write.
    asked: bool,
    /// The deadline moves with every request; a timer set anew each time would cost more than one that rings too early now and then.
    alarm: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: Patience) -> Self {
        let deadline = Instant::now() + patience.exchange;
        Self { stream, patience, deadline, asked: false, alarm: Box::pin(tokio::time::sleep_until(deadline)) }
    }

    /// Ready once the peer is not waited for any more; else the task is woken to look again.
    fn run_out(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while self.alarm.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if now >= self.deadline {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            // Never later than an exchange that begins now may last.
            self.alarm.as_mut().reset(self.deadline.min(now + self.patience.exchange));
        }
        Poll::Pending
    }

    fn has_read(&mut self, bytes: usize) {
        if bytes > 0 && !self.asked {
            self.asked = true;
            self.deadline = Instant::now() + self.patience.exchange;
        }
    }

    fn has_written(&mut self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.asked = false;
            self.deadline = Instant::now() + self.patience.idle + self.patience.exchange;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.run_out(context) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.has_read(buffer.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.run_out(context) {
            return Poll::Ready(Err(error));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.has_written(&written);
        written
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.run_out(context) {
            return Poll::Ready(Err(error));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.has_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Patience = Patience { exchange: Duration::from_millis(400), idle: Duration::from_millis(200) };

    /// A peer, and our end with room for 16 bytes on the way.
    fn pair() -> (DuplexStream, Patient<DuplexStream>) {
        let (peer, ours) = duplex(16);
        (peer, Patient::new(ours, PATIENCE))
    }

    fn cut<T: std::fmt::Debug>(result: io::Result<T>, started: Instant, after: Duration) {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= after, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn who_sends_without_end_is_cut() {
        let (mut peer, mut ours) = pair();
        let started = Instant::now();
        let sending = async {
            while peer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reading = async {
            while ours.read(&mut [0; 16]).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        let result = tokio::select! { () = sending => Ok(()), result = reading => result };
        cut(result, started, PATIENCE.exchange);
    }

    #[tokio::test]
    async fn who_takes_no_answer_is_cut() {
        let (mut peer, mut ours) = pair();
        peer.write_all(b"ask").await.unwrap();
        assert_eq!(ours.read(&mut [0; 16]).await.unwrap(), 3);
        let started = Instant::now();
        cut(ours.write_all(&[0; 64]).await, started, PATIENCE.exchange);
    }

    #[tokio::test]
    async fn every_exchange_has_its_own_time() {
        let (mut peer, mut ours) = pair();
        let started = Instant::now();
        while started.elapsed() < 3 * (PATIENCE.exchange + PATIENCE.idle) {
            tokio::time::sleep(PATIENCE.idle / 4).await;
            peer.write_all(b"ask").await.unwrap();
            assert_eq!(ours.read(&mut [0; 16]).await.unwrap(), 3);
            tokio::time::sleep(PATIENCE.exchange / 8).await;
            ours.write_all(b"answer").await.unwrap();
            assert_eq!(peer.read(&mut [0; 16]).await.unwrap(), 6);
        }
        let started = Instant::now();
        cut(ours.read(&mut [0; 16]).await, started, PATIENCE.idle);
    }
}
