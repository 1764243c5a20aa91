//! Many users at once, every answer counted by its own word.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;

/// One answer of the issue call.
#[derive(Debug, Clone)]
pub struct Answer {
    pub user: String,
    pub status: u16,
    /// `result`, or `-` where there was no answer.
    pub result: String,
    pub body: Value,
}

#[derive(Debug, Default)]
pub struct Tally {
    pub answers: Vec<Answer>,
}

impl Tally {
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for answer in &self.answers {
            *counts.entry(answer.result.as_str()).or_default() += 1;
        }
        counts
    }

    pub fn with<'a>(&'a self, result: &'a str) -> impl Iterator<Item = &'a Answer> {
        self.answers.iter().filter(move |answer| answer.result == result)
    }
}

pub fn users(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

pub async fn ask(http: &reqwest::Client, api: &str, coupon: &str, user: &str) -> Answer {
    let request =
        http.post(format!("{api}/api/v1/coupons/{coupon}/issue")).header("X-User-Id", user).header("X-Trace-Id", format!("trace-{user}"));
    let no_answer = |body| Answer { user: user.to_owned(), status: 0, result: "-".to_owned(), body };
    match request.send().await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            match answer.json::<Value>().await {
                Ok(body) => Answer { user: user.to_owned(), status, result: body["result"].as_str().unwrap_or("?").to_owned(), body },
                Err(error) => no_answer(Value::String(error.to_string())),
            }
        }
        Err(error) => no_answer(Value::String(error.to_string())),
    }
}

/// Every user asks once, up to 500 at a time, spread over `apis`. With `insist`, an answer that is not final is asked for again.
pub async fn crowd(http: &reqwest::Client, apis: &[String], coupon: &str, users: &[String], insist: bool) -> Tally {
    let room = Arc::new(Semaphore::new(500));
    let mut asking = tokio::task::JoinSet::new();
    for (number, user) in users.iter().enumerate() {
        let (http, coupon, user, room) = (http.clone(), coupon.to_owned(), user.clone(), Arc::clone(&room));
        let apis = apis.to_vec();
        asking.spawn(async move {
            let _permit = room.acquire().await.unwrap();
            let mut tries = 0;
            loop {
                let answer = ask(&http, &apis[(number + tries) % apis.len()], &coupon, &user).await;
                tries += 1;
                let is_final = matches!(answer.result.as_str(), "ACCEPTED" | "ALREADY_ISSUED" | "SOLD_OUT" | "CLOSED");
                if is_final || !insist || tries > 200 {
                    return answer;
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        });
    }
    Tally { answers: asking.join_all().await }
}
