//! A light HTTP client: prepared bytes out, status and length in, on threads of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// Threads of the client; a server under test has as many.
const THREADS: usize = 2;

/// When a connection sends its next request.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As soon as it has its answer.
    Closed,
    /// So many requests a second over all connections, whether or not the answers come; latency counts from when a request was due.
    PerSecond(f64),
}

/// What to send: request `n` is `before[n % before.len()] + tokens[n] + after`. No request is sent twice.
#[derive(Debug, Clone)]
pub struct Work {
    pub address: String,
    /// Everything up to the token; several for several coupons.
    pub before: Arc<Vec<String>>,
    pub tokens: Arc<Vec<String>>,
    pub connections: usize,
    pub pace: Pace,
    pub lasts: Duration,
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    pub seconds: f64,
    /// Answers by status, index `status`.
    statuses: Vec<(u16, u64)>,
    pub failed: u64,
    /// Microseconds, sorted.
    latencies: Vec<u32>,
}

impl Answers {
    pub fn of(&self, status: u16) -> u64 {
        self.statuses.iter().find(|(known, _)| *known == status).map_or(0, |(_, count)| *count)
    }

    pub fn statuses(&self) -> &[(u16, u64)] {
        &self.statuses
    }

    pub fn total(&self) -> u64 {
        self.statuses.iter().map(|(_, count)| count).sum()
    }

    pub fn per_second(&self, status: u16) -> f64 {
        self.of(status) as f64 / self.seconds
    }

    /// Milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        f64::from(self.latencies.get(index).copied().unwrap_or(0)) / 1_000.0
    }

    fn count(&mut self, status: u16) {
        match self.statuses.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => self.statuses.push((status, 1)),
        }
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            match self.statuses.iter_mut().find(|(known, _)| *known == status) {
                Some((_, sum)) => *sum += count,
                None => self.statuses.push((status, count)),
            }
        }
        self.failed += other.failed;
        self.latencies.extend(other.latencies);
    }
}

/// Connects everybody first, then sends until the time is over, every request of `tokens` was sent, or `stop` is set.
///
/// The seconds count from the first request to the last answer.
pub fn run(work: &Work) -> Answers {
    let next = Arc::new(AtomicUsize::new(0));
    let ready = Arc::new(std::sync::Barrier::new(THREADS));
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (work, next, ready, over) = (work.clone(), Arc::clone(&next), Arc::clone(&ready), Arc::clone(&over));
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                LocalSet::new().block_on(&runtime, async move {
                    let mine = (thread..work.connections).step_by(THREADS);
                    let mut streams = Vec::new();
                    for number in mine {
                        streams.push((number, TcpStream::connect(&work.address).await.unwrap()));
                    }
                    ready.wait();
                    let started = Instant::now();
                    let tasks: Vec<_> = streams
                        .into_iter()
                        .map(|(number, stream)| {
                            let connection = Connection { number, work: work.clone(), next: Arc::clone(&next), over: Arc::clone(&over) };
                            tokio::task::spawn_local(connection.talk(stream, started))
                        })
                        .collect();
                    let mut sum = Answers::default();
                    for task in tasks {
                        sum.add(task.await.unwrap());
                    }
                    sum.seconds = started.elapsed().as_secs_f64();
                    sum
                })
            })
        })
        .collect();
    let mut sum = Answers::default();
    for thread in threads {
        let answers = thread.join().unwrap();
        sum.seconds = sum.seconds.max(answers.seconds);
        sum.add(answers);
    }
    sum.latencies.sort_unstable();
    sum
}

struct Connection {
    number: usize,
    work: Work,
    next: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Connection {
    async fn talk(self, mut stream: TcpStream, started: Instant) -> Answers {
        stream.set_nodelay(true).unwrap();
        let mut answers = Answers::default();
        let (mut request, mut buffer) = (Vec::with_capacity(1_024), Vec::with_capacity(4_096));
        let mut turn = 0_u32;
        while started.elapsed() < self.work.lasts && !self.over.load(Ordering::Relaxed) {
            let due = match self.work.pace {
                Pace::Closed => Instant::now(),
                Pace::PerSecond(rate) => {
                    let each = self.work.connections as f64 / rate;
                    let due =
                        started + Duration::from_secs_f64(each * (f64::from(turn) + self.number as f64 / self.work.connections as f64));
                    turn += 1;
                    tokio::time::sleep_until(due.into()).await;
                    due
                }
            };
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(token) = self.work.tokens.get(number) else {
                self.over.store(true, Ordering::Relaxed);
                break;
            };
            request.clear();
            request.extend_from_slice(self.work.before[number % self.work.before.len()].as_bytes());
            request.extend_from_slice(token.as_bytes());
            request.extend_from_slice(b"\r\n\r\n");
            match exchange(&mut stream, &request, &mut buffer).await {
                Ok(status) => answers.count(status),
                Err(_) => {
                    answers.failed += 1;
                    return answers;
                }
            }
            answers.latencies.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        answers
    }
}

/// One request and its answer, which must say its length.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> io::Result<u16> {
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head]).map_err(|_| io::ErrorKind::InvalidData)?;
        let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let wanted = head + 4 + length.ok_or(io::ErrorKind::InvalidData)?;
        while buffer.len() < wanted {
            if stream.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        return Ok(status);
    }
}
