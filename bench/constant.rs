//! The ceiling: the same HTTP library, as many workers, the same check of the token, and an answer that never changes.

use actix_web::http::header::AUTHORIZATION;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use coupon_svc::api::{ApiOptions, JwtOptions, JwtVerifier};

/// As long as an answer of the service.
const BODY: &str = r#"{"result":"ACCEPTED","issue_id":"0b8e8f2c-64b7-5f0a-9d3e-2a3b4c5d6e7f","sequence":123456}"#;

async fn answer(request: HttpRequest, verifier: web::Data<JwtVerifier>) -> HttpResponse {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    match token.map(|token| verifier.verify(token)) {
        Some(Ok(_)) => HttpResponse::Accepted().content_type("application/json").body(BODY),
        _ => HttpResponse::Unauthorized().finish(),
    }
}

/// Serves until the process is killed.
pub fn serve(port: u16, secret: &str) {
    let verifier = JwtVerifier::new(JwtOptions { hs256_secret: Some(secret.into()), ..JwtOptions::default() }).unwrap();
    let verifier = web::Data::new(verifier);
    actix_web::rt::System::new()
        .block_on(async move {
            HttpServer::new(move || {
                App::new()
                    .app_data(verifier.clone())
                    .service(web::resource("/api/v1/coupons/{coupon_id}/issue").route(web::post().to(answer)))
                    // What a crowd of `make loadtest` does before T0.
                    .service(
                        web::resource("/api/v1/coupons")
                            .route(web::get().to(HttpResponse::Ok))
                            .route(web::post().to(HttpResponse::Created)),
                    )
            })
            .workers(std::thread::available_parallelism().map_or(2, usize::from))
            .backlog(16_384)
            .max_connections(25_000)
            // The library's 5 s would make a crowd that waits for its T0 connect again.
            .keep_alive(ApiOptions::default().keep_alive)
            .disable_signals()
            .bind(("127.0.0.1", port))
            .unwrap()
            .run()
            .await
        })
        .unwrap();
}
