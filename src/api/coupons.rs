//! Coupons: create, change, read.

use actix_web::http::header::{ETAG, HeaderValue, IF_MATCH, LOCATION};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};

use super::body::{Body, Fields, text};
use super::error::{Code, Problem};
use super::identity::{Admin, actor};
use super::page::{Page, Query};
use super::trace::TraceId;
use super::{App, CouponPath, instant};
use crate::domain::{CouponId, Discount, Status, TermsDraft, TermsPatch};
use crate::issuer::{ChangeAnswer, CouponView, CreateAnswer};
use crate::telemetry::admin::{Action, Outcome};

/// A coupon as it is answered.
#[derive(Debug, Serialize)]
struct CouponJson {
    coupon_id: CouponId,
    name: String,
    kind: String,
    discount: Discount,
    total_quantity: i64,
    opens_at: Option<String>,
    closes_at: Option<String>,
    status: Status,
    issued: i64,
    remaining: i64,
    version: i64,
}

impl From<CouponView> for CouponJson {
    fn from(view: CouponView) -> Self {
        let terms = view.terms;
        Self {
            coupon_id: view.coupon,
            name: terms.name,
            kind: terms.kind,
            discount: terms.discount,
            total_quantity: terms.total_quantity,
            opens_at: terms.opens_at.and_then(instant::to_text),
            closes_at: terms.closes_at.and_then(instant::to_text),
            status: terms.status,
            issued: view.issued,
            remaining: (terms.total_quantity - view.issued).max(0),
            version: terms.version,
        }
    }
}

fn etag(version: i64) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(format!("\"{version}\"")).map_err(|_| Code::Internal.into())
}

fn coupon_answer(mut builder: actix_web::HttpResponseBuilder, view: CouponView) -> Result<HttpResponse, Problem> {
    Ok(builder.insert_header((ETAG, etag(view.terms.version)?)).json(CouponJson::from(view)))
}

fn location(coupon: CouponId) -> String {
    format!("/api/v1/coupons/{coupon}")
}

/// `POST /api/v1/coupons`
pub(super) async fn create(admin: Admin, trace: TraceId, app: web::Data<App>, body: Body) -> Result<HttpResponse, Problem> {
    let (id, draft) = parse_draft(&body.0)?;
    let total = draft.total_quantity;
    let answer = app.state.issuer.create(id, draft).await;
    let (coupon, outcome) = match &answer {
        CreateAnswer::Created(view) => (Some(view.coupon), Outcome::Done),
        CreateAnswer::Same(view) => (Some(view.coupon), Outcome::Unchanged),
        CreateAnswer::Exists(view) => (Some(view.coupon), Outcome::Refused),
        CreateAnswer::Unavailable => (id, Outcome::Failed),
    };
    actor(&admin, &trace).did_to_coupon(Action::CouponCreate, coupon, outcome, &format!("total_quantity {total}"));
    create_answer(answer)
}

fn create_answer(answer: CreateAnswer) -> Result<HttpResponse, Problem> {
    let (mut builder, view) = match answer {
        CreateAnswer::Created(view) => (HttpResponse::Created(), view),
        CreateAnswer::Same(view) => (HttpResponse::Ok(), view),
        CreateAnswer::Exists(view) => {
            return Err(Problem::new(Code::Exists).member("coupon_id", view.coupon.to_string()));
        }
        CreateAnswer::Unavailable => return Err(Code::Unavailable.into()),
    };
    builder.insert_header((LOCATION, location(view.coupon)));
    coupon_answer(builder, view)
}

/// `PATCH /api/v1/coupons/{coupon_id}`
pub(super) async fn change(
    admin: Admin,
    path: CouponPath,
    trace: TraceId,
    app: web::Data<App>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Problem> {
    let coupon = path.0;
    let if_match = parse_if_match(&request);
    let (patch, if_match) = match (parse_patch(&body.0), if_match) {
        (Ok(patch), Ok(if_match)) => (patch, if_match),
        (patch, if_match) => {
            let faults: Vec<_> = [patch.err(), if_match.err()].into_iter().flatten().flatten().collect();
            return Err(Problem::invalid(&faults));
        }
    };
    let answer = app.state.issuer.change(coupon, &patch, if_match).await;
    let outcome = match &answer {
        ChangeAnswer::Done(_) => Outcome::Done,
        ChangeAnswer::Version(_) | ChangeAnswer::Closed(_) | ChangeAnswer::Invalid(_) => Outcome::Refused,
        ChangeAnswer::NotFound => Outcome::NotFound,
        ChangeAnswer::Unavailable => Outcome::Failed,
    };
    actor(&admin, &trace).did_to_coupon(Action::CouponChange, Some(coupon), outcome, &format!("{patch:?}"));
    change_answer(answer)
}

fn change_answer(answer: ChangeAnswer) -> Result<HttpResponse, Problem> {
    match answer {
        ChangeAnswer::Done(view) => coupon_answer(HttpResponse::Ok(), view),
        ChangeAnswer::Version(view) => {
            let version = view.terms.version;
            Err(Problem::new(Code::Version).member("version", version).header(ETAG, etag(version)?))
        }
        ChangeAnswer::Closed(_) => Err(Code::Closed.into()),
        ChangeAnswer::Invalid(faults) => Err(Problem::invalid(&faults)),
        ChangeAnswer::NotFound => Err(Code::CouponNotFound.into()),
        ChangeAnswer::Unavailable => Err(Code::Unavailable.into()),
    }
}

/// `GET /api/v1/coupons`
pub(super) async fn list(app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::of(request.query_string())?;
    let limit = query.limit();
    let after = query.get("after", "must be the next of another page", |text| text.parse::<CouponId>().ok());
    query.done()?;
    let rows = app.state.issuer.coupons(limit + 1, after);
    let page: Page<CouponJson> = Page::of(rows, limit, |view| view.coupon.to_string(), CouponJson::from);
    Ok(HttpResponse::Ok().json(page))
}

/// `GET /api/v1/coupons/{coupon_id}`
pub(super) async fn show(path: CouponPath, app: web::Data<App>) -> Result<HttpResponse, Problem> {
    let view = app.state.issuer.coupon(path.0).await?.ok_or(Code::CouponNotFound)?;
    coupon_answer(HttpResponse::Ok(), view)
}

const BAD_INTEGER: &str = "must be an integer";

/// The draft, or every fault: a field that cannot be read is stood in for, so that the others are still judged.
fn parse_draft(object: &Map<String, Value>) -> Result<(Option<CouponId>, TermsDraft), Problem> {
    let mut fields = Fields::new(object, "");
    fields.refuse_unknown(&["coupon_id", "name", "kind", "discount", "total_quantity", "opens_at", "closes_at"]);
    let id = fields.optional("coupon_id", "must be a UUID such as 7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a", |value| match value {
        Value::Null => Some(None),
        value => value.as_str()?.parse::<CouponId>().ok().map(Some),
    });
    let name = fields.required("name", "must be text", text);
    let kind = fields.required("kind", "must be text", text);
    let discount = fields.required("discount", "must be an object with type and value", Value::as_object);
    let discount = discount.and_then(|object| parse_discount(object, &mut fields));
    let total_quantity = fields.required("total_quantity", BAD_INTEGER, Value::as_i64);
    let opens_at = fields.instant("opens_at").flatten();
    let closes_at = fields.instant("closes_at").flatten();
    let draft = TermsDraft {
        name: name.unwrap_or_else(|| "-".to_owned()),
        kind: kind.unwrap_or_else(|| "-".to_owned()),
        discount: discount.unwrap_or(Discount::Fixed(1)),
        total_quantity: total_quantity.unwrap_or(1),
        opens_at,
        closes_at,
    };
    let mut faults = fields.faults;
    faults.extend(draft.check());
    if faults.is_empty() { Ok((id.flatten(), draft)) } else { Err(Problem::invalid(&faults)) }
}

fn parse_discount(object: &Map<String, Value>, outer: &mut Fields<'_>) -> Option<Discount> {
    let mut fields = Fields::new(object, "discount.");
    fields.refuse_unknown(&["type", "value"]);
    let word = fields
        .required("type", "must be FIXED or PERCENTAGE", |value| value.as_str().filter(|word| Discount::from_parts(word, 1).is_some()));
    let value = fields.required("value", BAD_INTEGER, Value::as_i64);
    outer.faults.append(&mut fields.faults);
    Discount::from_parts(word?, value?)
}

fn parse_patch(object: &Map<String, Value>) -> Result<TermsPatch, Vec<crate::domain::FieldFault>> {
    const FIXED: [&str; 4] = ["coupon_id", "name", "kind", "discount"];
    let mut fields = Fields::new(object, "");
    fields.refuse_unknown(&["status", "total_quantity", "opens_at", "closes_at", "coupon_id", "name", "kind", "discount"]);
    for name in FIXED.iter().filter(|name| object.contains_key(**name)) {
        fields.fault(name, "cannot be changed");
    }
    let patch = TermsPatch {
        status: fields.optional("status", "must be OPEN, PAUSED or CLOSED", |value| Status::parse(value.as_str()?)),
        total_quantity: fields.optional("total_quantity", BAD_INTEGER, Value::as_i64),
        opens_at: fields.instant("opens_at"),
        closes_at: fields.instant("closes_at"),
    };
    // What the patch alone tells; the rest shows when it is merged.
    let stand_in = TermsDraft {
        name: "-".to_owned(),
        kind: "-".to_owned(),
        discount: Discount::Fixed(1),
        total_quantity: patch.total_quantity.unwrap_or(1),
        opens_at: patch.opens_at.flatten(),
        closes_at: patch.closes_at.flatten(),
    };
    let mut faults = fields.faults;
    faults.extend(stand_in.check());
    if faults.is_empty() { Ok(patch) } else { Err(faults) }
}

/// The version of `If-Match: "3"`; `*` and no header ask for none.
fn parse_if_match(request: &HttpRequest) -> Result<Option<i64>, Vec<crate::domain::FieldFault>> {
    let fault = || vec![crate::domain::FieldFault::new("If-Match", "must be one ETag such as \"3\", or *")];
    let mut values = request.headers().get_all(IF_MATCH);
    let Some(value) = values.next() else { return Ok(None) };
    let value = value.to_str().ok().filter(|_| values.next().is_none()).ok_or_else(fault)?.trim();
    if value == "*" {
        return Ok(None);
    }
    let version = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    version.parse().map(Some).map_err(|_| fault())
}

#[cfg(test)]
#[path = "coupons_tests.rs"]
mod tests;
