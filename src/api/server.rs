//! The listener and the server on it.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};

use actix_http::HttpService;
use actix_service::{ServiceFactoryExt, map_config};
use actix_web::dev::{AppConfig, Server, fn_service};
use actix_web::rt::net::TcpStream;
use actix_web::web;

use super::patience::{Patience, Patient};
use super::{ApiOptions, ApiState, App, configure};

/// A listener with a backlog for a crowd that connects at once; the standard library's has 128 places.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: u32 = 16_384;
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Serves the API on `listener` once the returned server is awaited. Signals are not its business: `Server::handle().stop(true)`
/// ends it, requests in flight answered within the shutdown timeout.
///
/// Put together from the parts of `HttpServer`, which takes no stream but its own: its timeout for a head counts for the first one of a
/// connection only, and a body that no handler reads is drained for ever.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(listener: TcpListener, state: ApiState, options: ApiOptions) -> io::Result<Server> {
    let workers = options.workers.max(1);
    let patience = Patience { exchange: options.exchange_timeout, idle: options.keep_alive };
    let app = web::Data::new(App::new(state, &options));
    let builder = Server::build()
        .workers(workers)
        .max_concurrent_connections(options.max_connections.div_ceil(workers).max(1))
        .shutdown_timeout(options.shutdown_timeout.as_secs())
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let server = builder.listen("api", listener, move || {
        let (app, stopping) = (app.clone(), stopping.clone());
        let routes = actix_web::App::new().configure(|config| configure(config, &app));
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(options.keep_alive)
            .client_request_timeout(options.client_request_timeout)
            .client_disconnect_timeout(options.client_disconnect_timeout)
            .h1(map_config(routes, |()| AppConfig::default()));
        fn_service(move |stream: TcpStream| {
            let peer = stream.peer_addr().ok();
            ready(Ok((Patient::new(stream, patience), peer)))
        })
        .and_then(http)
    })?;
    Ok(server.run())
}
