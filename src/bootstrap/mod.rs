//! The composition root: from a command line to a running process. Only `parts` names adapters.

mod commands;
mod parts;
mod serve;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use self::commands::Settling;
use crate::api::{DeadLetterJson, mint_hs256, openapi};
use crate::cli::{self, AuditArgs, Cli, Command, DlqCommand, EXIT_FAILURE, TokenArgs};
use crate::config::Config;
use crate::ledger::{DeadLetter, DeadLetterState, Page};
use crate::telemetry::logs;

/// What a command logs: what goes wrong, and what it does in an admin's name ([`crate::telemetry::admin::TARGET`]).
const COMMAND_FILTER: &str = "warn,admin=info";

/// Carries out the command line; returns the process's exit code.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    if matches!(cli.command, Some(Command::Openapi)) {
        print_json(&openapi());
        return ExitCode::SUCCESS;
    }
    let config = match cli.load_config() {
        Ok(config) => config,
        Err(errors) => return cli::report_config_errors(&errors),
    };
    if let Some(Command::Config(command)) = &cli.command {
        return cli::run_config(command, &config);
    }
    let filter = if cli.command.is_some() { COMMAND_FILTER } else { config.log.filter.as_str() };
    let logs = match logs::init(config.log.format, filter) {
        Ok(guard) => guard,
        Err(error) => return fail(&anyhow::Error::new(error)),
    };
    // One provider for every TLS stack; a second installation would only find the first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("failed to start the runtime")),
    };
    let outcome = match cli.command {
        None => runtime.block_on(serve::serve(config)).map(ExitCode::from),
        Some(command) => runtime.block_on(carry_out(command, &config)),
    };
    // Whatever hangs in a blocking call must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(logs);
    outcome.unwrap_or_else(|error| fail(&error))
}

#[expect(clippy::print_stderr, reason = "the last word of a process that failed")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("coupon-svc: {error:#}");
    ExitCode::from(EXIT_FAILURE)
}

#[expect(clippy::print_stdout, reason = "printing is the command")]
async fn carry_out(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Migrate => {
            let run = commands::migrate(config).await?;
            run.iter().for_each(|name| println!("migrated {name}"));
            println!("the ledger is up to date");
        }
        Command::Audit(AuditArgs { coupon, json }) => {
            let report = commands::audit(config, coupon).await?;
            if json {
                print_json(&serde_json::to_value(&report)?);
            } else {
                println!("{report}");
            }
            return Ok(commands::exit_code(&report));
        }
        Command::Dlq(command) => return dead_letters(command, config).await,
        Command::Token(TokenArgs { user, admin, ttl }) => {
            let jwt = &config.jwt;
            let secret = jwt.hs256_secret().context("there is no secret to sign with: set jwt.hs256_secret (COUPON__JWT__HS256_SECRET)")?;
            let token = mint_hs256(secret, &user, admin, Duration::from_secs(ttl), jwt.issuer(), jwt.audience())?;
            println!("{token}");
        }
        // Done before there was a runtime.
        Command::Config(_) | Command::Openapi => {}
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "printing is the command")]
async fn dead_letters(command: DlqCommand, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        DlqCommand::List { state, limit, after, json } => {
            let letters = commands::dead_letters(config, state, Page { limit, after }).await?;
            if json {
                let letters: Vec<_> = letters.into_iter().map(DeadLetterJson::from).collect();
                print_json(&serde_json::to_value(letters)?);
            } else {
                println!("{:>8}  {:<10}  {:<36}  {:<24}  {:>8}  error", "id", "state", "coupon", "user", "sequence");
                letters.iter().for_each(print_line);
            }
        }
        DlqCommand::Show { id, json: _ } => {
            let letter = DeadLetterJson::from(commands::dead_letter(config, id).await?);
            print_json(&serde_json::to_value(letter)?);
        }
        DlqCommand::Replay { ids } => {
            let settling = Settling::open(config).await?;
            return each(ids, async |id| settling.replay(id).await.map(|()| DeadLetterState::Replayed)).await;
        }
        DlqCommand::Abandon { ids, reason, yes: _ } => {
            let settling = Settling::open(config).await?;
            return each(ids, async |id| settling.abandon(id, &reason).await.map(|letter| letter.state)).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Settles every letter, whatever becomes of the others, and tells of each; fails if one failed.
#[expect(clippy::print_stdout, reason = "printing is the command")]
async fn each(ids: Vec<i64>, settle: impl AsyncFn(i64) -> anyhow::Result<DeadLetterState>) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        match settle(id).await {
            Ok(DeadLetterState::Abandoning) => {
                println!("dead letter {id}: abandoning, its revocation is in the log and no consumer has applied it yet");
            }
            Ok(state) => println!("dead letter {id}: {}", state.as_str()),
            Err(error) => code = fail(&error),
        }
    }
    Ok(code)
}

#[expect(clippy::print_stdout, reason = "printing is the command")]
fn print_line(letter: &DeadLetter) {
    let (coupon, user, sequence) = match &letter.win {
        Some(win) => (win.coupon.to_string(), win.user.as_str(), win.sequence.to_string()),
        None => ("-".to_owned(), "-", "-".to_owned()),
    };
    println!("{:>8}  {:<10}  {coupon:<36}  {user:<24}  {sequence:>8}  {}", letter.id, letter.state.as_str(), letter.error);
}

#[expect(clippy::print_stdout, reason = "printing is the command")]
fn print_json(value: &serde_json::Value) {
    println!("{value:#}");
}
