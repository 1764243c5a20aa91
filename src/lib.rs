//! coupon-svc: first-come-first-served coupon issuance. See `ARCHITECTURE.md`.

pub mod api;
pub mod audit;
pub mod bootstrap;
pub mod cli;
pub mod config;
pub mod consumer;
pub mod domain;
pub mod follower;
pub mod gate;
pub mod issuer;
pub mod journal;
pub mod kill_point;
pub mod ledger;
pub mod redis;
pub mod roles;
pub mod telemetry;
pub mod tls;
