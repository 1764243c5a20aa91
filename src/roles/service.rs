//! The tasks of a role, put together from ports.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::api::Abandon;
use crate::follower::Follower;
use crate::issuer::{Issuer, Unavailable};
use crate::kill_point::kill_point;
use crate::ledger::{DeadLetter, DeadLetterState, Ledger};
use crate::telemetry::{Condition, Health};

/// Abandons dead letters: the state in the ledger, the revoke in the log.
#[derive(Debug)]
pub struct Abandoner {
    pub issuer: Arc<Issuer>,
    pub ledger: Arc<dyn Ledger>,
}

#[async_trait]
impl Abandon for Abandoner {
    async fn abandon(&self, id: i64, by: &str) -> Result<Option<DeadLetter>, Unavailable> {
        let letter = self.ledger.abandon(id).await.map_err(|error| {
            tracing::warn!(dead_letter.id = id, %error, "cannot abandon a dead letter");
            Unavailable
        })?;
        let Some(letter) = letter else { return Ok(None) };
        if let (DeadLetterState::Abandoning, Some(win)) = (letter.state, &letter.win) {
            kill_point("abandon.revoke.before");
            self.issuer.revoke(win.coupon, &win.revocation(format!("dead letter {id} abandoned by {by}"))).await?;
            kill_point("abandon.revoke.after");
        }
        Ok(Some(letter))
    }
}

/// Ends the start, and waits until everything readiness depends on is there.
///
/// An API has then read every partition up to its end: hearing from one alone, it would know of the others what the ledger knew.
pub async fn until_ready(follower: Option<&Follower>, start: &Condition, health: &Health) {
    if let Some(follower) = follower {
        follower.caught_up().await;
    }
    start.set(true, "done");
    while !health.is_ready() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Unloads coupons that are over and tells the gates to forget them; until cancelled.
pub async fn unload_over(follower: Arc<Follower>, ledger: Arc<dyn Ledger>, issuer: Arc<Issuer>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(15)) => {}
        }
        match follower.unload(ledger.as_ref()).await {
            Ok(unloaded) => {
                for coupon in unloaded {
                    tracing::info!(coupon.id = %coupon, "unloaded a coupon that is over");
                    kill_point("unload.after");
                    issuer.forget(coupon).await;
                }
            }
            Err(error) => tracing::debug!(%error, "cannot unload now"),
        }
    }
}

/// Appends the closing terms of coupons whose window ended; until cancelled.
pub async fn close_ended(issuer: Arc<Issuer>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
        issuer.close_ended().await;
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
