//! What the caller has.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use uuid::Uuid;

use super::error::Problem;
use super::identity::Caller;
use super::page::{Page, Query, one_more};
use super::{App, instant};
use crate::domain::{CouponId, Discount, EpochMillis, Sequence, Terms, issue_id};
use crate::ledger::{self, IssuedRow};

#[derive(Debug, Serialize)]
struct MineJson {
    coupon_id: CouponId,
    name: String,
    kind: String,
    discount: Discount,
    issue_id: Uuid,
    sequence: Sequence,
    requested_at: Option<String>,
    issued_at: Option<String>,
}

impl From<(IssuedRow, Terms)> for MineJson {
    fn from((row, terms): (IssuedRow, Terms)) -> Self {
        Self {
            coupon_id: row.coupon,
            name: terms.name,
            kind: terms.kind,
            discount: terms.discount,
            issue_id: issue_id(row.coupon, &row.user),
            sequence: row.sequence,
            requested_at: instant::to_text(row.requested_at),
            issued_at: instant::to_text(row.issued_at),
        }
    }
}

/// `GET /api/v1/me/coupons`
pub(super) async fn coupons(caller: Caller, app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::of(request.query_string())?;
    let limit = query.limit();
    let after = query.get("after", "must be the next of another page", parse_cursor);
    query.done()?;
    let rows = app.in_time(app.state.ledger.coupons_of(&caller.user, ledger::Page { limit: one_more(limit), after })).await?;
    let page: Page<MineJson> = Page::of(rows, limit, |(row, _)| format!("{}_{}", row.issued_at, row.coupon), MineJson::from);
    Ok(HttpResponse::Ok().json(page))
}

fn parse_cursor(text: &str) -> Option<(EpochMillis, CouponId)> {
    let (at, coupon) = text.split_once('_')?;
    Some((at.parse().ok()?, coupon.parse().ok()?))
}
