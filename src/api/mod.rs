//! The HTTP face: routes with what they read and answer beside them, one error type, one edge that every request passes.
//!
//! Reads are open to anybody, a user's own calls need an identity, changes need an admin. Nothing here decides anything: the
//! issuer answers, the ledger is read, and this room puts it into words.

mod body;
mod coupons;
mod dead_letters;
mod edge;
mod error;
mod identity;
mod instant;
mod issue;
mod limits;
mod me;
mod page;
mod patience;
mod server;
mod trace;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use async_trait::async_trait;

use self::edge::{Edge, Route};
use self::issue::IssueCounters;
use self::limits::InFlight;
use crate::domain::CouponId;
use crate::issuer::{Issuer, Unavailable};
use crate::ledger::{DeadLetter, Ledger};
use crate::telemetry::Metrics;

pub use dead_letters::{DeadLetterJson, outcome_of_abandon, outcome_of_replay};
pub use error::{Code, Problem};
pub use identity::{BadNetwork, Caller, Identity, JwtError, JwtOptions, JwtVerifier, Network, mint_hs256};
pub use server::{bind, serve};

/// Takes back a win that cannot be written: open -> abandoning, and the revocation appended until it is seen in the log.
#[async_trait]
pub trait Abandon: Send + Sync {
    /// The letter as it is after the call, `None` when there is none. Repeating it is harmless.
    ///
    /// # Errors
    /// A part did not answer; asking again settles it.
    ///
    /// # Cancellation
    /// A dropped call may have begun: the letter's state tells.
    async fn abandon(&self, id: i64, by: &str) -> Result<Option<DeadLetter>, Unavailable>;
}

/// What the routes need.
pub struct ApiState {
    pub issuer: Arc<Issuer>,
    pub ledger: Arc<dyn Ledger>,
    pub metrics: Arc<Metrics>,
    pub identity: Identity,
    pub abandon: Arc<dyn Abandon>,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Bounds on clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiOptions {
    pub body_limit: usize,
    /// Issue calls in flight in this process, and as many others: a crowd never keeps an admin out.
    pub max_in_flight: usize,
    /// Over all workers; above it a client waits in the backlog.
    pub max_connections: usize,
    pub workers: usize,
    pub keep_alive: Duration,
    /// Longest wait for a part before a request is answered 503.
    pub answer_timeout: Duration,
    /// For the head of a request, and again for its body.
    pub client_request_timeout: Duration,
    /// From the first byte of a request to the last of its answer, however either side spends it; then the connection is cut.
    pub exchange_timeout: Duration,
    pub client_disconnect_timeout: Duration,
    /// How long requests in flight are waited for at a graceful stop; whole seconds.
    pub shutdown_timeout: Duration,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            body_limit: 16 * 1024,
            max_in_flight: 20_000,
            max_connections: 40_000,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            keep_alive: Duration::from_secs(75),
            answer_timeout: Duration::from_millis(1_800),
            client_request_timeout: Duration::from_secs(5),
            exchange_timeout: Duration::from_secs(30),
            client_disconnect_timeout: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// Everything a request can reach; one for all workers.
#[derive(Debug)]
struct App {
    state: ApiState,
    body_limit: usize,
    body_timeout: Duration,
    answer_timeout: Duration,
    issue_in_flight: InFlight,
    other_in_flight: InFlight,
    issue_counters: IssueCounters,
}

impl App {
    fn new(state: ApiState, options: &ApiOptions) -> Self {
        Self {
            body_limit: options.body_limit,
            body_timeout: options.client_request_timeout,
            answer_timeout: options.answer_timeout,
            issue_in_flight: InFlight::new(options.max_in_flight),
            other_in_flight: InFlight::new(options.max_in_flight),
            issue_counters: IssueCounters::new(&state.metrics),
            state,
        }
    }

    /// The outcome of a call, if it comes in time: a database that is silent has longer deadlines than a client has patience.
    async fn in_time<T, E: Into<Problem>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, Problem> {
        match tokio::time::timeout(self.answer_timeout, call).await {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(_) => Err(Code::Unavailable.into()),
        }
    }
}

/// Of this request's application.
fn app(request: &HttpRequest) -> Result<web::Data<App>, Problem> {
    request.app_data::<web::Data<App>>().cloned().ok_or_else(|| Problem::new(Code::Internal))
}

/// The coupon that the path names; what is no UUID names none.
struct CouponPath(CouponId);

impl FromRequest for CouponPath {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let coupon = request.match_info().get("coupon_id").and_then(|id| id.parse().ok());
        ready(coupon.map(Self).ok_or_else(|| Code::CouponNotFound.into()))
    }
}

const fn route(template: &'static str, allow: &'static str) -> Route {
    Route { template, allow, issue: false }
}

const COUPONS: Route = route("/api/v1/coupons", "GET, POST");
const COUPON: Route = route("/api/v1/coupons/{coupon_id}", "GET, PATCH");
const ISSUE: Route = Route { template: "/api/v1/coupons/{coupon_id}/issue", allow: "GET, POST", issue: true };
const MY_COUPONS: Route = route("/api/v1/me/coupons", "GET");
const DEAD_LETTERS: Route = route("/api/v1/admin/dead-letters", "GET");
const DEAD_LETTER: Route = route("/api/v1/admin/dead-letters/{id}", "GET");
const REPLAY: Route = route("/api/v1/admin/dead-letters/{id}/replay", "POST");
const ABANDON: Route = route("/api/v1/admin/dead-letters/{id}/abandon", "POST");
/// Whatever is not a route, under one label.
const UNMATCHED: Route = route("unmatched", "");

#[cfg(test)]
const ROUTES: [Route; 8] = [COUPONS, COUPON, ISSUE, MY_COUPONS, DEAD_LETTERS, DEAD_LETTER, REPLAY, ABANDON];

async fn not_found() -> Result<&'static str, Problem> {
    Err(Code::NotFound.into())
}

async fn method_not_allowed() -> Result<&'static str, Problem> {
    Err(Code::MethodNotAllowed.into())
}

/// Puts the routes of `app` into an application.
fn configure(config: &mut web::ServiceConfig, app: &web::Data<App>) {
    let resource = |route: Route| web::resource(route.template).default_service(web::to(method_not_allowed));
    let edge = |route| Edge::new(app, route);
    config
        .app_data(app.clone())
        // The crowd's route is looked at first.
        .service(resource(ISSUE).route(web::post().to(issue::issue)).route(web::get().to(issue::result)).wrap(edge(ISSUE)))
        .service(resource(COUPON).route(web::get().to(coupons::show)).route(web::patch().to(coupons::change)).wrap(edge(COUPON)))
        .service(resource(COUPONS).route(web::get().to(coupons::list)).route(web::post().to(coupons::create)).wrap(edge(COUPONS)))
        .service(resource(MY_COUPONS).route(web::get().to(me::coupons)).wrap(edge(MY_COUPONS)))
        .service(resource(DEAD_LETTERS).route(web::get().to(dead_letters::list)).wrap(edge(DEAD_LETTERS)))
        .service(resource(DEAD_LETTER).route(web::get().to(dead_letters::show)).wrap(edge(DEAD_LETTER)))
        .service(resource(REPLAY).route(web::post().to(dead_letters::replay)).wrap(edge(REPLAY)))
        .service(resource(ABANDON).route(web::post().to(dead_letters::abandon)).wrap(edge(ABANDON)))
        .default_service(web::to(not_found).wrap(edge(UNMATCHED)));
}

/// The `OpenAPI` 3.1 document of the routes.
#[must_use]
pub fn openapi() -> serde_json::Value {
    // A test reads it, so it is JSON.
    serde_json::from_str(include_str!("openapi.json")).unwrap_or_default()
}
