//! The command line: parsed here, carried out in the composition root.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigErrors, Overrides, PrintFormat, Role, load, process_env};
use crate::domain::{CouponId, UserId};
use crate::ledger::DeadLetterState;

/// Initialisation failed, a required part failed, or the audit found violations.
pub const EXIT_FAILURE: u8 = 1;
/// Bad usage or configuration (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// First-come-first-served coupon issuance.
///
/// Without a subcommand it serves; without anything it serves all of it, with the data in ./data, the API on 127.0.0.1:8080, and
/// probes and metrics on 127.0.0.1:9100.
#[derive(Debug, Clone, Parser)]
#[command(name = "coupon-svc", version)]
pub struct Cli {
    /// What this process does: api, consumer or all
    #[arg(long, global = true, value_name = "ROLE", value_parser = parse_role)]
    pub role: Option<Role>,
    /// A configuration file; later ones win, the environment (`COUPON__SECTION__KEY`) wins over all
    #[arg(long = "config", global = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Bring the ledger's tables up to date
    Migrate,
    /// Recompute from the journal and compare with the ledger; exit code 1 on violations
    Audit(AuditArgs),
    /// Look at and settle dead letters
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Make a token for a user, signed with `jwt.hs256_secret`
    Token(TokenArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the OpenAPI description of the HTTP API
    Openapi,
}

/// Arguments of `audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Only this coupon
    #[arg(long, value_name = "ID")]
    pub coupon: Option<CouponId>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What to do with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum DlqCommand {
    /// List dead letters
    List {
        /// Only those in this state: open, abandoning, replayed or abandoned
        #[arg(long, value_parser = parse_state)]
        state: Option<DeadLetterState>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// Only those after this id
        #[arg(long, value_name = "ID")]
        after: Option<i64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one with its message
    Show {
        id: i64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write its row now, with the sequence it kept
    Replay {
        /// One or more ids
        #[arg(required = true)]
        ids: Vec<i64>,
    },
    /// Give its slot back: the user loses the coupon
    Abandon {
        /// One or more ids
        #[arg(required = true)]
        ids: Vec<i64>,
        /// Why, for the record
        #[arg(long, default_value = "abandoned by an operator")]
        reason: String,
        /// Confirms that the users lose their coupons
        #[arg(long, required = true)]
        yes: bool,
    },
}

/// Arguments of `token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// The user id, 1-64 characters of A-Z a-z 0-9 . _ : @ -
    #[arg(long, value_name = "USER")]
    pub user: UserId,
    /// May administer coupons
    #[arg(long)]
    pub admin: bool,
    /// Seconds until it expires
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub ttl: u64,
}

/// What to do with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration without its secrets, as TOML
    Print {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Cli {
    /// Reads the arguments (the first is the program's name).
    ///
    /// # Errors
    /// What to exit with: help and version are printed and succeed, bad usage is printed and is [`EXIT_USAGE`].
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        Self::try_parse_from(args).map_err(|error| {
            // Nobody is left to tell when the terminal is gone.
            let _unsent = error.print();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_USAGE),
            }
        })
    }

    /// The configuration of these flags and this process's environment.
    ///
    /// # Errors
    /// Every fault at once; see [`report_config_errors`].
    pub fn load_config(&self) -> Result<Config, ConfigErrors> {
        load(&self.files, &process_env(), &Overrides { role: self.role })
    }
}

/// Names every fault on standard error and says what to exit with.
#[expect(clippy::print_stderr, reason = "there is no log yet without a configuration")]
#[must_use]
pub fn report_config_errors(errors: &ConfigErrors) -> ExitCode {
    eprintln!("coupon-svc: {errors}");
    ExitCode::from(EXIT_USAGE)
}

/// Carries out a `config` subcommand.
#[expect(clippy::print_stdout, reason = "printing is the command")]
#[must_use]
pub fn run_config(command: &ConfigCommand, config: &Config) -> ExitCode {
    let ConfigCommand::Print { json } = command;
    print!("{}", config.print(if *json { PrintFormat::Json } else { PrintFormat::Toml }));
    ExitCode::SUCCESS
}

fn parse_role(text: &str) -> Result<Role, String> {
    text.parse()
}

fn parse_state(text: &str) -> Result<DeadLetterState, String> {
    DeadLetterState::parse(text).ok_or_else(|| format!("must be one of {}", DeadLetterState::ALL.map(DeadLetterState::as_str).join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, ExitCode> {
        Cli::from_args(std::iter::once("coupon-svc").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_arguments_serve() {
        let cli = parse("").unwrap();
        assert!(cli.command.is_none() && cli.role.is_none() && cli.files.is_empty());
    }

    #[test]
    fn flags_go_before_and_after_the_subcommand() {
        let cli = parse("--role api --config a.toml --config b.toml").unwrap();
        assert_eq!(cli.role, Some(Role::Api));
        assert_eq!(cli.files, [PathBuf::from("a.toml"), PathBuf::from("b.toml")]);
        let cli = parse("audit --json --config a.toml --coupon 7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a").unwrap();
        assert_eq!(cli.files.len(), 1);
        assert!(matches!(cli.command, Some(Command::Audit(AuditArgs { coupon: Some(_), json: true }))));
        assert!(matches!(
            parse("token --user u-1 --admin").unwrap().command,
            Some(Command::Token(TokenArgs { admin: true, ttl: 3_600, .. }))
        ));
        assert!(matches!(parse("config print").unwrap().command, Some(Command::Config(ConfigCommand::Print { json: false }))));
    }

    #[test]
    fn bad_usage_exits_64_and_help_exits_0() {
        let code = |line: &str| format!("{:?}", parse(line).unwrap_err());
        for line in ["--role boss", "nonsense", "audit --coupon x", "dlq abandon 1", "dlq replay", "token", "token --user a/b", "config"] {
            assert_eq!(code(line), format!("{:?}", ExitCode::from(EXIT_USAGE)), "{line}");
        }
        assert_eq!(code("--help"), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code("--version"), format!("{:?}", ExitCode::SUCCESS));
        assert!(parse("dlq abandon 1 2 --yes").is_ok());
    }
}
