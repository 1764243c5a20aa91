//! Pages of lists: `?limit=&after=` in, `{"items":[...],"next":cursor|null}` out.

use actix_web::web;
use serde::Serialize;

use super::error::Problem;
use crate::domain::FieldFault;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// The query of a list, read by hand so that every bad parameter is named.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    faults: Vec<FieldFault>,
}

impl Query {
    pub(super) fn of(query: &str) -> Result<Self, Problem> {
        let pairs =
            web::Query::<Vec<(String, String)>>::from_query(query).map_err(|_| Problem::invalid_field("", "the query cannot be read"))?;
        Ok(Self { pairs: pairs.into_inner(), faults: Vec::new() })
    }

    /// The parameter, if it is there; `parse` giving `None` is a fault.
    pub(super) fn get<T>(&mut self, name: &str, message: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let (_, text) = self.pairs.iter().find(|(given, _)| given == name)?;
        let parsed = parse(text);
        if parsed.is_none() {
            self.faults.push(FieldFault::new(name, message));
        }
        parsed
    }

    pub(super) fn limit(&mut self) -> usize {
        let limit = self.get("limit", "must be from 1 to 200", |text| text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)));
        limit.unwrap_or(DEFAULT_LIMIT)
    }

    pub(super) fn done(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(&self.faults)) }
    }
}

/// A page as it is answered.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T> Page<T> {
    /// Of up to `limit + 1` rows: the row too many only says that there is a next page.
    pub(super) fn of<R>(mut rows: Vec<R>, limit: usize, cursor: impl Fn(&R) -> String, item: impl Fn(R) -> T) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(cursor) } else { None };
        Self { items: rows.into_iter().map(item).collect(), next }
    }
}

/// `limit + 1` as the ledger counts.
pub(super) fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_has_a_cursor_only_when_more_follows() {
        let page = Page::of(vec![1, 2, 3], 2, ToString::to_string, |row| row);
        assert_eq!((page.items, page.next.as_deref()), (vec![1, 2], Some("2")));
        let page = Page::of(vec![1, 2], 2, ToString::to_string, |row| row);
        assert_eq!((page.items, page.next), (vec![1, 2], None));
    }

    #[test]
    fn every_bad_parameter_is_named() {
        let mut query = Query::of("limit=201&after=x&other=1").unwrap();
        assert_eq!(query.limit(), 50);
        assert_eq!(query.get("after", "must be a number", |text| text.parse::<i64>().ok()), None);
        assert_eq!(query.faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), ["limit", "after"]);
        assert!(query.done().is_err());
        assert_eq!(Query::of("limit=200").unwrap().limit(), 200);
    }
}
