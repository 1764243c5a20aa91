//! What every request passes: trace id, in-flight limit, body length, panics, problem bodies, metrics, the request's log line.

use std::cell::RefCell;
use std::future::{Ready, ready};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::header::{ALLOW, CONTENT_LENGTH, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{Error, HttpMessage, web};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use prometheus::{Histogram, IntCounter};
use tracing::Instrument;

use super::App;
use super::error::{Code, Problem};
use super::trace::{TRACE_ID, TraceId};

/// One path of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) template: &'static str,
    /// Its methods, as the header `Allow` has them.
    pub(super) allow: &'static str,
    /// The issue call: `result` in every answer, in-flight places and metrics of its own.
    pub(super) issue: bool,
}

/// Makes the edge of one route, for one worker.
#[derive(Debug)]
pub(super) struct Edge {
    app: web::Data<App>,
    route: Route,
}

impl Edge {
    pub(super) fn new(app: &web::Data<App>, route: Route) -> Self {
        Self { app: app.clone(), route }
    }
}

impl<S> Transform<S, ServiceRequest> for Edge
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = EdgeService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let seconds = self.app.state.metrics.http_seconds.with_label_values(&[self.route.template]);
        let context = EdgeContext { app: self.app.clone(), route: self.route, seconds, answers: RefCell::default() };
        ready(Ok(EdgeService { service, context: Rc::new(context) }))
    }
}

#[derive(Debug)]
pub(super) struct EdgeService<S> {
    service: S,
    context: Rc<EdgeContext>,
}

#[derive(Debug)]
struct EdgeContext {
    app: web::Data<App>,
    route: Route,
    seconds: Histogram,
    /// Counters by status, bound when first needed.
    answers: RefCell<Vec<(StatusCode, IntCounter)>>,
}

impl<S> Service<ServiceRequest> for EdgeService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<ServiceResponse<BoxBody>, Error>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.service.poll_ready(context)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let started = Instant::now();
        let context = Rc::clone(&self.context);
        let trace = TraceId::of(request.headers());
        let guard = match context.admit(&request) {
            Ok(guard) => guard,
            Err(problem) => {
                let response = request.error_response(problem);
                return ready(Ok(context.finish(response, &trace, started))).boxed_local();
            }
        };
        request.extensions_mut().insert(trace.clone());
        let span = context.span(&trace);
        // The path is matched by now, so a second handle of the request does no harm.
        let kept = request.request().clone();
        let call = AssertUnwindSafe(self.service.call(request)).catch_unwind();
        let answer = async move {
            let response = match call.await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => ServiceResponse::from_err(error, kept),
                Err(_) => {
                    tracing::error!(trace_id = trace.as_str(), route = context.route.template, "a request handler panicked");
                    ServiceResponse::from_err(Problem::new(Code::Internal), kept)
                }
            };
            drop(guard);
            Ok(context.finish(response, &trace, started))
        };
        answer.instrument(span).boxed_local()
    }
}

impl EdgeContext {
    /// A place in flight, or why the request is not even looked at.
    fn admit(&self, request: &ServiceRequest) -> Result<super::limits::Guard, Problem> {
        let in_flight = if self.route.issue { &self.app.issue_in_flight } else { &self.app.other_in_flight };
        let guard = in_flight.enter().ok_or(Code::TooManyRequests)?;
        if let Some(length) = request.headers().get(CONTENT_LENGTH) {
            let length = length.to_str().ok().and_then(|length| length.parse::<usize>().ok());
            if length.is_none_or(|length| length > self.app.body_limit) {
                return Err(Code::TooLarge.into());
            }
        }
        Ok(guard)
    }

    /// The issue call logs its trace id itself where it must: a span there is for debugging only.
    fn span(&self, trace: &TraceId) -> tracing::Span {
        if self.route.issue {
            tracing::debug_span!("request", trace_id = trace.as_str())
        } else {
            tracing::error_span!("request", trace_id = trace.as_str())
        }
    }

    /// Completes the answer, counts and logs it.
    fn finish(&self, response: ServiceResponse<BoxBody>, trace: &TraceId, started: Instant) -> ServiceResponse<BoxBody> {
        let mut response = match self.problem_answer(&response, trace) {
            Some(answer) => response.into_response(answer),
            None => response,
        };
        response.headers_mut().insert(TRACE_ID, trace.header());
        let elapsed = started.elapsed();
        self.seconds.observe(elapsed.as_secs_f64());
        self.count(response.status());
        tracing::debug!(
            trace_id = trace.as_str(),
            method = %response.request().method(),
            route = self.route.template,
            status = response.status().as_u16(),
            elapsed_us = elapsed.as_micros(),
            "request answered"
        );
        response
    }

    /// The full answer in place of an error that knew neither trace id nor route.
    fn problem_answer(&self, response: &ServiceResponse<BoxBody>, trace: &TraceId) -> Option<actix_web::HttpResponse> {
        let error = response.response().error()?;
        let unknown;
        let problem = match error.as_error::<Problem>() {
            Some(problem) => problem,
            None => {
                unknown = Problem::new(self.code_of(error, trace));
                &unknown
            }
        };
        if self.route.issue && response.request().method() == Method::POST {
            self.app.state.metrics.issue_total.with_label_values(&[problem.code().as_str()]).inc();
        }
        let mut answer = problem.respond(trace.as_str(), self.route.issue);
        if problem.code() == Code::MethodNotAllowed {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(self.route.allow));
        }
        if problem.code() == Code::TooLarge {
            // The rest of the body is not worth reading.
            answer.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
        }
        Some(answer)
    }

    /// For an error of the framework.
    fn code_of(&self, error: &Error, trace: &TraceId) -> Code {
        if error.as_response_error().status_code().is_client_error() {
            return Code::Invalid;
        }
        tracing::error!(trace_id = trace.as_str(), route = self.route.template, %error, "a request failed for an unknown reason");
        Code::Internal
    }

    fn count(&self, status: StatusCode) {
        let mut answers = self.answers.borrow_mut();
        if let Some((_, counter)) = answers.iter().find(|(known, _)| *known == status) {
            counter.inc();
            return;
        }
        let counter = self.app.state.metrics.http_requests_total.with_label_values(&[self.route.template, status.as_str()]);
        counter.inc();
        answers.push((status, counter));
    }
}
