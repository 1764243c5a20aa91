//! Word to systemd (`Type=notify`): ready, stopping, watchdog. Does nothing where systemd did not start us.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use sd_notify::NotifyState;

/// The notification socket, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Systemd {
    socket: Option<PathBuf>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// As `NOTIFY_SOCKET` and `WATCHDOG_USEC` of this process's environment say.
    #[must_use]
    pub fn from_env() -> Self {
        Self::new(std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from), sd_notify::watchdog_enabled())
    }

    /// With the socket (a path, or `@name` for an abstract one) and the watchdog's limit from outside.
    #[must_use]
    pub const fn new(socket: Option<PathBuf>, watchdog: Option<Duration>) -> Self {
        Self { socket, watchdog }
    }

    /// How often to call [`Systemd::alive`]: half the watchdog's limit; `None` without a watchdog.
    #[must_use]
    pub fn alive_every(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        self.watchdog.map(|limit| limit / 2).filter(|interval| !interval.is_zero())
    }

    /// The service is ready.
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready, NotifyState::Status("ready")]);
    }

    /// The service is stopping.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// The service is alive.
    pub fn alive(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// A lost word is not worth a failure.
    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = send_to(socket.as_os_str(), text.as_bytes()) {
            tracing::warn!(%error, "systemd was not notified");
        }
    }
}

fn send_to(socket: &OsStr, bytes: &[u8]) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    // A full queue must not stop the service.
    sender.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return sender.send_to_addr(bytes, &address).map(drop);
    }
    sender.send_to(bytes, socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn systemd_hears_ready_alive_and_stopping() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let systemd = Systemd::new(Some(path), Some(Duration::from_secs(10)));
        assert_eq!(systemd.alive_every(), Some(Duration::from_secs(5)));
        systemd.ready();
        systemd.alive();
        systemd.stopping();
        assert_eq!(received(&socket), "READY=1\nSTATUS=ready\n");
        assert_eq!(received(&socket), "WATCHDOG=1\n");
        assert_eq!(received(&socket), "STOPPING=1\nSTATUS=stopping\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_reached() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("coupon-svc-{}", uuid::Uuid::new_v4());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Systemd::new(Some(format!("@{name}").into()), None).alive();
        assert_eq!(received(&socket), "WATCHDOG=1\n");
    }

    #[test]
    fn nothing_happens_without_systemd() {
        let systemd = Systemd::new(None, Some(Duration::from_secs(10)));
        systemd.ready();
        assert_eq!(systemd.alive_every(), None);
        Systemd::new(Some("/nowhere/notify".into()), None).stopping();
    }
}
