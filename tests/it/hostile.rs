//! Hostile clients against the real binary: no answer that is not theirs, no failure, no growth, and everybody else is served meanwhile.

use std::time::{Duration, Instant};

use coupon_svc::domain::{CouponId, issue_id};
use serde_json::json;

use crate::support::{Deployment, Parts, Process, Raw, ask, eventually};

const MIB: u64 = 1024;

async fn deployment(settings: &[(&str, &str)]) -> (Deployment, Process) {
    let mut deployment = Deployment::new(Parts::Embedded).await;
    deployment.env.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let service = deployment.start("all").await;
    (deployment, service)
}

fn get_mine(user: &str) -> String {
    format!("GET /api/v1/me/coupons HTTP/1.1\r\nHost: x\r\nX-User-Id: {user}\r\nX-Trace-Id: of-{user}\r\n\r\n")
}

/// Sends `request`; the answer must be one of `statuses`, a problem or empty, and the connection good for another user or at its end.
async fn refused(service: &Process, request: &[u8], statuses: &[u16]) {
    let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
    let mut raw = Raw::connect(&service.api).await;
    // What is refused half way is not taken to its end.
    let _sent = raw.send(request).await;
    let answer = raw.answer().await.unwrap_or_else(|| panic!("no answer: {shown}"));
    assert!(statuses.contains(&answer.status), "{shown}: {answer:?}");
    // A head that cannot be read is refused below the routes, without a body.
    if !answer.body.is_empty() {
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{shown}");
        assert!(answer.json()["code"].is_string(), "{shown}");
    }
    if raw.send(get_mine("next").as_bytes()).await
        && let Some(next) = raw.answer().await
    {
        assert_eq!((next.status, next.header("x-trace-id")), (200, Some("of-next")), "{shown}: {next:?}");
    }
}

fn head(line: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: x\r\nX-User-Id: alice\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_paths_and_methods_are_refused() {
    let (deployment, service) = deployment(&[]).await;
    let coupon = deployment.create(&service.api, 10).await;
    let plain = coupon.replace('-', "");
    let long = "x".repeat(60_000);
    for path in [
        "/api/v1/coupons/..",
        "/api/v1/coupons/%2e%2e",
        "/api/v1/coupons/%2E%2E/issue",
        "/api/v1/../v1/coupons",
        "/api/v1/coupons/%00",
        "/api/v1//coupons",
        "//api/v1/coupons",
        "/api/v1/coupons/",
        "/api/v1/coupons//issue",
        "/api/v1/me/coupons/",
        "/API/v1/coupons",
        "/api/v1/coupons/%ff%fe",
        "/api/v1/coupons/%",
        "/api/v1/coupons/%zz",
        "/api/v1/admin/dead-letters/../../coupons",
        "*",
        &format!("/api/v1/coupons/{plain}"),
        &format!("/api/v1/coupons/{coupon}%2Fissue"),
        &format!("/api/v1/coupons/{coupon}%00"),
        &format!("/api/v1/coupons/{coupon}/issue/"),
        &format!("/api/v1/coupons/%7B{coupon}%7D"),
        &format!("/api/v1/coupons/{coupon};a=b"),
        &format!("/api/v1/coupons/urn:uuid:{coupon}"),
        &format!("/api/v1/coupons/{long}"),
        &format!("/{long}/issue"),
    ] {
        refused(&service, &head(&format!("GET {path}")), &[400, 404]).await;
    }
    for line in
        ["PUT /api/v1/coupons", "TRACE /api/v1/coupons", "OPTIONS /api/v1/coupons", "BREW /api/v1/coupons", "DELETE /api/v1/me/coupons"]
    {
        refused(&service, &head(line), &[405]).await;
    }
    for line in ["G\u{0}T /", "GET", "GET  /api/v1/coupons", "G@T(x) /api/v1/coupons", "GET /api v1", "CONNECT x:1", "GET /\u{7f}"] {
        refused(&service, &head(line), &[400, 404, 405]).await;
    }
    refused(&service, &head(&format!("GET /{}", "y".repeat(70_000))), &[400, 414, 431]).await;
    refused(&service, format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "z".repeat(140_000)).as_bytes(), &[431]).await;
    refused(&service, format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(200)).as_bytes(), &[431]).await;

    // The same coupon by its other name, an absolute target and an older protocol are no tricks.
    let upper = format!("/api/v1/coupons/{}", coupon.to_uppercase());
    for request in [
        head(&format!("GET {upper}")),
        head(&format!("GET http://elsewhere.example{upper}")),
        format!("GET {upper} HTTP/1.0\r\n\r\n").into_bytes(),
    ] {
        let mut raw = Raw::connect(&service.api).await;
        assert!(raw.send(&request).await);
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, &answer.json()["coupon_id"]), (200, &json!(coupon)), "{}", String::from_utf8_lossy(&request));
    }
    deployment.settles(&coupon, 0).await;
}

/// What one server reads as one request and another as two.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_within_a_request_is_never_answered() {
    let (deployment, mut service) = deployment(&[]).await;
    let coupon = deployment.create(&service.api, 10).await;
    let hidden = format!("POST /api/v1/coupons/{coupon}/issue HTTP/1.1\r\nHost: x\r\nX-User-Id: victim\r\n\r\n");
    let post = format!("POST /api/v1/coupons/{coupon}/issue HTTP/1.1\r\nHost: x\r\nX-User-Id: mallory\r\n");
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for framing in [
        format!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n{chunk}", chunk.len()),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Content-Length: 0, {}\r\n\r\n{hidden}", hidden.len()),
        format!("Content-Length: +0\r\n\r\n{hidden}"),
        format!("Content-Length: -1\r\n\r\n{hidden}"),
        format!("Content-Length: 0x10\r\n\r\n{hidden}"),
        format!("Content-Length : 0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: identity\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Host: y\r\n\r\n{hidden}"),
        format!(" Content-Length: 10\r\n\r\n{hidden}"),
        format!("X: a\r\n b\r\n\r\n{hidden}"),
        format!("X: a\rY: b\r\n\r\n{hidden}"),
        format!("X: a\0b\r\n\r\n{hidden}"),
    ] {
        only_refused(&service, format!("{post}{framing}")).await;
    }
    // No host; a chunked body in a protocol that has none.
    only_refused(&service, format!("GET /api/v1/coupons HTTP/1.1\r\n\r\n{hidden}")).await;
    only_refused(&service, format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}")).await;
    only_refused(&service, format!("GET / HTTP/1.1\r\nHost: x\r\n{hidden}")).await;
    // A chunk that lies about its size ends the connection, whatever was answered before.
    for size in ["-1", "ffffffffffffffffff", "g", "0x5", "5 5", "", "5;\r"] {
        let mut raw = Raw::connect(&service.api).await;
        let request = format!(
            "POST /api/v1/coupons HTTP/1.1\r\nHost: x\r\nX-User-Id: root\r\nX-Admin: true\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n{hidden}"
        );
        assert!(raw.send(request.as_bytes()).await);
        let answer = raw.answer().await.unwrap();
        assert_eq!(answer.status, 400, "chunk {size:?}: {answer:?}");
        assert!(raw.answer().await.is_none_or(|next| next.status == 400 && next.body.is_empty()), "chunk {size:?}");
    }
    // Nobody asked in the victim's name.
    deployment.settles(&coupon, 0).await;
    // The end of the process writes all lines.
    service.signal("TERM");
    assert_eq!(service.ends(Duration::from_secs(20)).await, Some(0));
    let log = service.log_text();
    assert!(!log.contains("ERROR") && !log.contains("actix_http"), "what clients send fills no log: {log}");
}

/// One refusal and the end.
async fn only_refused(service: &Process, request: String) {
    let mut raw = Raw::connect(&service.api).await;
    assert!(raw.send(request.as_bytes()).await);
    let answer = raw.answer().await.unwrap_or_else(|| panic!("no answer: {request}"));
    assert!((400..500).contains(&answer.status), "{request}: {answer:?}");
    assert!(raw.ends().await, "more than one answer: {request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_belongs_to_its_asker() {
    const CONNECTIONS: usize = 48;
    const ROUNDS: usize = 6;
    let (deployment, service) = deployment(&[]).await;
    let coupon = deployment.create(&service.api, 1_000).await;
    let id: CouponId = coupon.parse().unwrap();
    let mut connections = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let (api, coupon) = (service.api.clone(), coupon.clone());
        connections.spawn(async move {
            let users = [format!("alice-{number}"), format!("bob-{number}")];
            let mut raw = Raw::connect(&api).await;
            for round in 0..ROUNDS {
                let mut sent = Vec::new();
                let mut expected = Vec::new();
                for step in 0..8 {
                    let user = &users[(step + round) % 2];
                    let method = if step < 4 { "POST" } else { "GET" };
                    let trace = format!("{user}-{round}-{step}");
                    let body = if step % 4 == 1 { "Content-Length: 5\r\n\r\nhello" } else { "\r\n" };
                    let request = format!(
                        "{method} /api/v1/coupons/{coupon}/issue HTTP/1.1\r\nHost: x\r\nX-User-Id: {user}\r\nX-Trace-Id: {trace}\r\n{body}"
                    );
                    sent.extend_from_slice(request.as_bytes());
                    expected.push((user.clone(), trace));
                }
                assert!(raw.send(&sent).await);
                for (user, trace) in expected {
                    let answer = raw.answer().await.unwrap_or_else(|| panic!("no answer for {trace}"));
                    assert_eq!(answer.header("x-trace-id"), Some(trace.as_str()));
                    let mine = issue_id(id, &user.parse().unwrap()).to_string();
                    assert!((200..300).contains(&answer.status) && answer.json()["issue_id"] == mine, "{trace}: {answer:?}");
                }
            }
        });
    }
    connections.join_all().await;
    deployment.settles(&coupon, i64::try_from(2 * CONNECTIONS).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_while_others_are_served() {
    let settings = [
        ("COUPON__API__HEADER_TIMEOUT_MS", "1000"),
        ("COUPON__API__KEEP_ALIVE_MS", "2000"),
        ("COUPON__API__EXCHANGE_TIMEOUT_MS", "4000"),
        ("COUPON__API__WORKERS", "1"),
    ];
    let (deployment, service) = deployment(&settings).await;
    let coupon = deployment.create(&service.api, 100).await;
    let post = "POST /api/v1/coupons HTTP/1.1\r\nHost: x\r\nX-User-Id: root\r\nX-Admin: true\r\n";
    let issue = format!("POST /api/v1/coupons/{coupon}/issue HTTP/1.1\r\nHost: x\r\nX-User-Id: slow\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let mine = get_mine("slow");
    // What is sent at once, what follows byte by byte for ever, and the answers before the end.
    let cases: Vec<(&str, String, &str, &[u16])> = vec![
        ("a head", "GET /api/v1/cou".to_owned(), "x", &[408]),
        ("a second head", format!("{mine}GET /api/v1/cou"), "x", &[200]),
        ("a second head, left", format!("{mine}GET /api/v1/cou"), "", &[200]),
        ("a body by length", format!("{post}Content-Length: 10000\r\n\r\n"), "x", &[408]),
        ("a body by length, left", format!("{post}Content-Length: 10\r\n\r\n{{"), "", &[408]),
        ("a body by chunks", format!("{post}{chunked}"), "1\r\nx\r\n", &[408]),
        ("a body nobody reads", format!("{issue}{chunked}"), "1\r\nx\r\n", &[202, 200]),
        ("a body nobody reads, by length", format!("{issue}Content-Length: 10000\r\n\r\n"), "x", &[202, 200]),
        ("nothing", String::new(), "", &[408]),
    ];
    let mut slow = tokio::task::JoinSet::new();
    for (what, first, then, answers) in cases {
        let what = what.to_owned();
        let (then, answers) = (then.as_bytes().to_vec(), answers.to_vec());
        let mut raw = Raw::connect(&service.api).await;
        slow.spawn(async move {
            let started = Instant::now();
            assert!(raw.send(first.as_bytes()).await);
            let (mut reading, mut writing) = raw.split();
            let trickling = tokio::spawn(async move {
                while writing.send(&then).await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            let mut given = Vec::new();
            while let Some(answer) = reading.answer().await {
                given.push(answer.status);
            }
            trickling.abort();
            assert!(given.iter().all(|status| answers.contains(status)) && given.len() == 1, "{what}: {given:?}");
            assert!(started.elapsed() < Duration::from_secs(12), "{what}: cut after {:?}", started.elapsed());
        });
    }
    // Far more is asked for than the buffers of both ends take, and nothing of it is read.
    let mut deaf = Raw::connect(&service.api).await;
    slow.spawn(async move {
        let started = Instant::now();
        let many = head("GET /api/v1/coupons/nothing/").repeat(500);
        while started.elapsed() < Duration::from_secs(12) && deaf.send(&many).await {}
        assert!(started.elapsed() < Duration::from_secs(12), "a client that reads nothing is waited for after {:?}", started.elapsed());
    });
    let mut number = 0;
    while !slow.is_empty() {
        number += 1;
        let started = Instant::now();
        let answer = ask(&deployment.http, &service.api, &coupon, &format!("quick-{}", number % 50)).await;
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        assert!(started.elapsed() < Duration::from_secs(1), "a normal client waited {:?}", started.elapsed());
        let next = tokio::time::timeout(Duration::from_millis(100), slow.join_next()).await;
        if let Ok(Some(ended)) = next {
            ended.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_end_are_refused_and_not_kept() {
    let (deployment, service) = deployment(&[("COUPON__API__EXCHANGE_TIMEOUT_MS", "14000")]).await;
    let coupon = deployment.create(&service.api, 10).await;
    let post = "POST /api/v1/coupons HTTP/1.1\r\nHost: x\r\nX-User-Id: root\r\nX-Admin: true\r\n";
    let issue = format!("POST /api/v1/coupons/{coupon}/issue HTTP/1.1\r\nHost: x\r\nX-User-Id: greedy\r\n");
    let before = service.resident();
    let mut sending = tokio::task::JoinSet::new();
    for (head, framing, statuses) in [
        (post, "Content-Length: 1000000000000\r\n\r\n", &[413][..]),
        (post, "Transfer-Encoding: chunked\r\n\r\n", &[413]),
        (&issue, "Content-Length: 1000000000000\r\n\r\n", &[413]),
        (&issue, "Transfer-Encoding: chunked\r\n\r\n", &[200, 202]),
    ] {
        let mut raw = Raw::connect(&service.api).await;
        let (request, statuses) = (format!("{head}{framing}"), statuses.to_vec());
        sending.spawn(async move {
            assert!(raw.send(request.as_bytes()).await);
            let (mut reading, mut writing) = raw.split();
            let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).into_bytes();
            let pouring = tokio::spawn(async move {
                let mut poured = 0_usize;
                while writing.send(&piece).await {
                    poured += piece.len();
                    // Enough to see growth; not the machine's whole day.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                poured
            });
            let answer = reading.answer().await.unwrap_or_else(|| panic!("no answer: {request}"));
            assert!(statuses.contains(&answer.status), "{request}: {answer:?}");
            pouring.await.unwrap()
        });
    }
    let poured: usize = sending.join_all().await.into_iter().sum();
    let grown = service.resident().saturating_sub(before);
    eprintln!("poured {} MiB, grown {grown} KiB", poured / 1024 / 1024);
    assert!(poured > 16 * 1024 * 1024, "the drained body shows growth only if something flows: {poured}");
    assert!(grown < 16 * MIB, "{grown} KiB for {poured} bytes of bodies");
    deployment.settles(&coupon, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_cost_little_and_block_nobody() {
    const IDLE: usize = 10_000;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft = open_files.split_whitespace().next().unwrap();
    let enough = soft == "unlimited" || soft.parse::<usize>().unwrap() > IDLE + 2_000;
    assert!(enough, "{soft} open files are too few for this test: ulimit -n 20000, as scripts/test.sh does");

    let (deployment, service) = deployment(&[]).await;
    let coupon = deployment.create(&service.api, 1_000).await;
    let before = service.resident();
    let mut idle = Vec::with_capacity(IDLE);
    for number in 0..IDLE {
        let mut raw = Raw::connect(&service.api).await;
        // Half of them were served once, so that their buffers exist.
        if number % 2 == 0 {
            assert!(raw.send(get_mine("idle").as_bytes()).await);
            assert_eq!(raw.answer().await.unwrap().status, 200);
        }
        idle.push(raw);
        if number % 20 == 0 {
            let started = Instant::now();
            let answer = ask(&deployment.http, &service.api, &coupon, &format!("u{number}")).await;
            assert!(matches!(answer.status, 202), "{answer:?}");
            assert!(started.elapsed() < Duration::from_secs(2), "{:?} with {number} idle", started.elapsed());
        }
    }
    let grown = service.resident().saturating_sub(before);
    eprintln!("{IDLE} idle connections: {grown} KiB");
    assert!(grown < 256 * MIB, "{grown} KiB for {IDLE} connections");
    drop(idle);
    eventually("all of them are forgotten", Duration::from_secs(20), async || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap().count();
        (open < 500).then_some(())
    })
    .await;
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "afterwards").await.status, 202);
    deployment.settles(&coupon, 501).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_leave_nothing_behind() {
    const STRANGERS: usize = 10_000;
    let (deployment, service) = deployment(&[]).await;
    let coupon = deployment.create(&service.api, 1).await;
    assert_eq!(ask(&deployment.http, &service.api, &coupon, "winner").await.status, 202);
    let round = async |from: usize| {
        let mut asking = tokio::task::JoinSet::new();
        for lane in 0..20 {
            let (http, api, coupon) = (deployment.http.clone(), service.api.clone(), coupon.clone());
            asking.spawn(async move {
                for number in (from + lane..from + STRANGERS).step_by(20) {
                    let user = format!("stranger-{number}");
                    let unknown = CouponId::random().to_string();
                    assert_eq!(ask(&http, &api, &unknown, &user).await.status, 404);
                    assert_eq!(ask(&http, &api, &coupon, &user).await.status, 409);
                    let odd = http.get(format!("{api}/api/v1/{user}")).header("X-Trace-Id", &unknown).send().await.unwrap();
                    assert_eq!(odd.status(), 404);
                }
            });
        }
        asking.join_all().await;
    };
    let lines = async || {
        let metrics = service.metrics().await;
        assert!(!metrics.contains("stranger"), "a metric names a user");
        metrics.lines().count()
    };
    round(0).await;
    let (before, series) = (service.resident(), lines().await);
    round(STRANGERS).await;
    let grown = service.resident().saturating_sub(before);
    eprintln!("{STRANGERS} strangers: {grown} KiB");
    assert!(grown < 8 * MIB, "{grown} KiB for {STRANGERS} strangers and as many unknown coupons");
    // The service's own metrics may come up meanwhile; a label that clients choose would add thousands.
    let more = lines().await.saturating_sub(series);
    assert!(more < 100, "{more} more lines of metrics: one has a label that clients choose");
    deployment.settles(&coupon, 1).await;
}
