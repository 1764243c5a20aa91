//! The ops listener: `/livez`, `/readyz` and `/metrics`, in every role, on an address of its own.

use std::net::TcpListener;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::http::header::{CACHE_CONTROL, ContentType};
use actix_web::{App, HttpResponse, HttpServer, web};
use prometheus::{Encoder, TextEncoder};

use super::{Health, Metrics};

/// Called before every scrape, to sample state gauges. Must not block.
pub type OnScrape = Arc<dyn Fn() + Send + Sync>;

/// Serves the ops listener with one worker of its own, so that a busy API does not delay it. Signals are not handled here.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(listener: TcpListener, metrics: Arc<Metrics>, health: Arc<Health>, on_scrape: OnScrape) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::from(Arc::clone(&metrics)))
            .app_data(web::Data::from(Arc::clone(&health)))
            .app_data(web::Data::new(Arc::clone(&on_scrape)))
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/metrics", web::get().to(scrape))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)?;
    Ok(server.run())
}

async fn livez() -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).content_type(ContentType::plaintext()).body("ok\n")
}

async fn readyz(health: web::Data<Health>) -> HttpResponse {
    let report = health.report();
    let mut answer = if report.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.insert_header((CACHE_CONTROL, "no-store")).json(report)
}

async fn scrape(metrics: web::Data<Metrics>, health: web::Data<Health>, on_scrape: web::Data<OnScrape>) -> HttpResponse {
    (on_scrape.get_ref())();
    metrics.ready.set(i64::from(health.is_ready()));
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&metrics.registry.gather(), &mut text) {
        Ok(()) => HttpResponse::Ok().content_type(encoder.format_type()).body(text),
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            HttpResponse::InternalServerError().finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_and_metrics_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let metrics = Arc::new(Metrics::new().unwrap());
        let health = Health::new();
        let follower = health.condition("follower");
        let sampled = Arc::clone(&metrics);
        let on_scrape: OnScrape = Arc::new(move || sampled.gate_reachable.set(1));
        let server = serve(listener, metrics, Arc::clone(&health), on_scrape).unwrap();
        let handle = server.handle();
        let serving = tokio::spawn(server);
        let get = async |path: &str| {
            let answer = reqwest::get(format!("{base}{path}")).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };

        assert_eq!(get("/livez").await.0, 200);
        let (status, body) = get("/readyz").await;
        assert_eq!(status, 503);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["checks"][0]["name"], "follower");
        assert_eq!(body["checks"][0]["ok"], false);
        assert!(get("/metrics").await.1.contains("coupon_ready 0"));
        follower.set(true, "caught up");
        assert_eq!(get("/readyz").await.0, 200);
        assert!(get("/metrics").await.1.contains("coupon_ready 1"));
        health.stop();
        assert_eq!(get("/readyz").await.0, 503);
        let (status, body) = get("/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("coupon_gate_reachable 1"), "{body}");
        assert!(body.contains("coupon_ready 0"), "it is stopping: {body}");

        handle.stop(true).await;
        serving.await.unwrap().unwrap();
    }
}
