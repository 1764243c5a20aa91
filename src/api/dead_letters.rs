//! Dead letters, for admins: list, show, replay, abandon.

use std::fmt::Write;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use tokio::time::timeout;

use super::error::{Code, Problem};
use super::identity::{Admin, actor};
use super::page::{Page, Query, one_more};
use super::trace::TraceId;
use super::{App, instant};
use crate::domain::{CouponId, Offset, Partition, Sequence, UserId};
use crate::issuer::Unavailable;
use crate::ledger::{self, DeadLetter, DeadLetterState, LedgerError, ReplayOutcome};
use crate::telemetry::admin::{Action, Outcome};

/// A dead letter as it is shown, over HTTP and on the command line.
#[derive(Debug, Serialize)]
pub struct DeadLetterJson {
    id: i64,
    state: DeadLetterState,
    partition: Partition,
    log_offset: Offset,
    /// `null`: a message no reader could read.
    win: Option<WinJson>,
    error: String,
    /// Text, or hex after `hex:` when the bytes are not text.
    key: String,
    value: String,
    created_at: Option<String>,
    updated_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct WinJson {
    coupon_id: CouponId,
    user_id: UserId,
    sequence: Sequence,
    requested_at: Option<String>,
}

impl From<DeadLetter> for DeadLetterJson {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id,
            state: letter.state,
            partition: letter.partition,
            log_offset: letter.log_offset,
            win: letter.win.map(|win| WinJson {
                coupon_id: win.coupon,
                user_id: win.user,
                sequence: win.sequence,
                requested_at: instant::to_text(win.requested_at),
            }),
            error: letter.error,
            key: readable(letter.key),
            value: readable(letter.value),
            created_at: instant::to_text(letter.created_at),
            updated_at: instant::to_text(letter.updated_at),
        }
    }
}

fn readable(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let bytes = error.as_bytes();
        bytes.iter().fold("hex:".to_owned(), |mut text, byte| {
            // Writing to a string does not fail.
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        })
    })
}

fn id_of(request: &HttpRequest) -> Result<i64, Problem> {
    request.match_info().get("id").and_then(|id| id.parse().ok()).ok_or_else(|| Code::NotFound.into())
}

fn letter_answer(letter: DeadLetter) -> HttpResponse {
    HttpResponse::Ok().json(DeadLetterJson::from(letter))
}

/// `GET /api/v1/admin/dead-letters`
pub(super) async fn list(_: Admin, app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::of(request.query_string())?;
    let limit = query.limit();
    let after = query.get("after", "must be the next of another page", |text| text.parse::<i64>().ok());
    let state = query.get("state", "must be open, abandoning, replayed or abandoned", DeadLetterState::parse);
    query.done()?;
    let rows = app.in_time(app.state.ledger.dead_letters(state, ledger::Page { limit: one_more(limit), after })).await?;
    let page: Page<DeadLetterJson> = Page::of(rows, limit, |letter| letter.id.to_string(), DeadLetterJson::from);
    Ok(HttpResponse::Ok().json(page))
}

/// `GET /api/v1/admin/dead-letters/{id}`
pub(super) async fn show(_: Admin, app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let letter = app.in_time(app.state.ledger.dead_letter(id_of(&request)?)).await?.ok_or(Code::NotFound)?;
    Ok(letter_answer(letter))
}

/// `POST /api/v1/admin/dead-letters/{id}/replay`; repeating it is the same answer.
pub(super) async fn replay(admin: Admin, trace: TraceId, app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = id_of(&request)?;
    // Dropped, it is rolled back or has committed; asking again tells.
    let late = || LedgerError::Down("no answer in time".to_owned());
    let replayed = timeout(app.answer_timeout, app.state.ledger.replay(id)).await.unwrap_or_else(|_| Err(late()));
    let (outcome, detail) = outcome_of_replay(&replayed);
    actor(&admin, &trace).did_to_dead_letter(Action::DeadLetterReplay, id, outcome, &detail);
    match replayed? {
        ReplayOutcome::Replayed | ReplayOutcome::State(DeadLetterState::Replayed) => {}
        ReplayOutcome::State(state) => return Err(wrong_state(state)),
        ReplayOutcome::NotFound => return Err(Code::NotFound.into()),
        ReplayOutcome::NotAWin => return Err(Code::NotAWin.into()),
        ReplayOutcome::Refused(error) => return Err(Problem::new(Code::StillRefused).member("error", error)),
    }
    Ok(letter_answer(app.in_time(app.state.ledger.dead_letter(id)).await?.ok_or(Code::NotFound)?))
}

/// What the admin log says of a replay, on every surface.
#[must_use]
pub fn outcome_of_replay(replayed: &Result<ReplayOutcome, LedgerError>) -> (Outcome, String) {
    match replayed {
        Ok(ReplayOutcome::Replayed) => (Outcome::Done, String::new()),
        Ok(ReplayOutcome::State(state @ DeadLetterState::Replayed)) => (Outcome::Unchanged, state.as_str().to_owned()),
        Ok(ReplayOutcome::State(state)) => (Outcome::Refused, state.as_str().to_owned()),
        Ok(ReplayOutcome::NotFound) => (Outcome::NotFound, String::new()),
        Ok(ReplayOutcome::NotAWin) => (Outcome::Refused, "not a win".to_owned()),
        Ok(ReplayOutcome::Refused(reason)) => (Outcome::Refused, reason.clone()),
        Err(error) => (Outcome::Failed, error.to_string()),
    }
}

/// `POST /api/v1/admin/dead-letters/{id}/abandon`; repeating it is the same answer.
pub(super) async fn abandon(admin: Admin, trace: TraceId, app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = id_of(&request)?;
    let abandoning = app.state.abandon.abandon(id, admin.0.as_str());
    let abandoned = timeout(app.answer_timeout, abandoning).await.unwrap_or(Err(Unavailable));
    let state = abandoned.as_ref().map(|letter| letter.as_ref().map(|letter| letter.state));
    let (outcome, detail) = outcome_of_abandon(state.ok());
    actor(&admin, &trace).did_to_dead_letter(Action::DeadLetterAbandon, id, outcome, detail);
    let letter = abandoned?.ok_or(Code::NotFound)?;
    match letter.state {
        DeadLetterState::Abandoned => Ok(letter_answer(letter)),
        DeadLetterState::Abandoning => Ok(HttpResponse::Accepted().json(DeadLetterJson::from(letter))),
        DeadLetterState::Replayed => Err(wrong_state(letter.state)),
        DeadLetterState::Open => Err(Code::Unavailable.into()),
    }
}

/// What the admin log says of an abandon, on every surface: by the letter's state after it, `Some(None)` where there is no letter, `None`
/// where that is not known.
#[must_use]
pub const fn outcome_of_abandon(state: Option<Option<DeadLetterState>>) -> (Outcome, &'static str) {
    match state {
        Some(Some(state @ (DeadLetterState::Abandoned | DeadLetterState::Abandoning))) => (Outcome::Done, state.as_str()),
        Some(Some(state @ DeadLetterState::Replayed)) => (Outcome::Refused, state.as_str()),
        Some(Some(state @ DeadLetterState::Open)) => (Outcome::Failed, state.as_str()),
        Some(None) => (Outcome::NotFound, ""),
        None => (Outcome::Failed, "not known"),
    }
}

fn wrong_state(state: DeadLetterState) -> Problem {
    Problem::new(Code::State).member("state", state.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_as_hex() {
        assert_eq!(readable(b"{\"v\":1}".to_vec()), "{\"v\":1}");
        assert_eq!(readable(vec![0xff, 0x00, 0x0a]), "hex:ff000a");
    }
}
