//! A TCP proxy that can be cut or stalled: the network's faults between the service and one server.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinHandle;

/// The stack's broker advertises one port for a proxy: one test at a time may listen there.
static KAFKA: Mutex<()> = Mutex::const_new(());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections end, and nobody gets in.
    Cut,
    /// Connections stay, and nothing gets through.
    Stalled,
}

#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    way: Arc<watch::Sender<Way>>,
    task: JoinHandle<()>,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Proxy {
    pub async fn start(to: String) -> Self {
        Self::listen(0, to, None).await
    }

    /// Between the service and the stack's broker; waits until no other test has it.
    pub async fn kafka() -> Self {
        let turn = KAFKA.lock().await;
        Self::listen(19_095, "127.0.0.1:19094".to_owned(), Some(turn)).await
    }

    async fn listen(port: u16, to: String, turn: Option<MutexGuard<'static, ()>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let state = Arc::clone(&way);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(connect(near, to.clone(), state.subscribe()));
            }
        });
        Self { port, way, task, _turn: turn }
    }

    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    pub fn stall(&self) {
        self.way.send_replace(Way::Stalled);
    }

    pub fn restore(&self) {
        self.way.send_replace(Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(near: TcpStream, to: String, mut way: watch::Receiver<Way>) {
    // Accepted by the system already: a connection made while nothing gets through is open and silent.
    if way.wait_for(|way| *way != Way::Stalled).await.is_ok_and(|way| *way == Way::Cut) {
        return;
    }
    let Ok(far) = TcpStream::connect(&to).await else { return };
    let _ignored = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut cut = way.clone();
    tokio::select! {
        () = pump(near_in, far_out, way.clone()) => {}
        () = pump(far_in, near_out, way) => {}
        _ = cut.wait_for(|way| *way == Way::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if way.wait_for(|way| *way != Way::Stalled).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
