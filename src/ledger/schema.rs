//! The tables, as the queries see them. The same in both databases; `migrations/` is their source.

diesel::table! {
    coupons (coupon_id) {
        coupon_id -> Text,
        part -> Integer,
        version -> BigInt,
        change_id -> Text,
        name -> Text,
        kind -> Text,
        discount_type -> Text,
        discount_value -> BigInt,
        total_quantity -> BigInt,
        opens_at -> Nullable<BigInt>,
        closes_at -> Nullable<BigInt>,
        status -> Text,
        issued -> BigInt,
        next_sequence -> BigInt,
    }
}

diesel::table! {
    coupon_terms (coupon_id, version) {
        coupon_id -> Text,
        version -> BigInt,
        change_id -> Text,
        name -> Text,
        kind -> Text,
        discount_type -> Text,
        discount_value -> BigInt,
        total_quantity -> BigInt,
        opens_at -> Nullable<BigInt>,
        closes_at -> Nullable<BigInt>,
        status -> Text,
        log_offset -> BigInt,
    }
}

diesel::table! {
    revocations (coupon_id, sequence) {
        coupon_id -> Text,
        user_id -> Text,
        sequence -> BigInt,
        won_offset -> BigInt,
        log_offset -> BigInt,
        reason -> Text,
        at_ms -> BigInt,
    }
}

diesel::table! {
    issued_coupons (coupon_id, sequence) {
        coupon_id -> Text,
        sequence -> BigInt,
        user_id -> Text,
        issue_id -> Text,
        log_offset -> BigInt,
        requested_at -> BigInt,
        issued_at -> BigInt,
    }
}

diesel::table! {
    dead_letters (id) {
        id -> BigInt,
        part -> Integer,
        log_offset -> BigInt,
        coupon_id -> Nullable<Text>,
        user_id -> Nullable<Text>,
        sequence -> Nullable<BigInt>,
        requested_at -> Nullable<BigInt>,
        error -> Text,
        record_key -> Binary,
        value -> Binary,
        state -> Text,
        created_at -> BigInt,
        updated_at -> BigInt,
    }
}

diesel::table! {
    partition_offsets (part) {
        part -> Integer,
        next_offset -> BigInt,
        fingerprint -> BigInt,
    }
}

diesel::table! {
    partition_claims (part) {
        part -> Integer,
        owner -> Nullable<Text>,
        expires_at -> BigInt,
    }
}

diesel::table! {
    consumers (owner) {
        owner -> Text,
        expires_at -> BigInt,
    }
}

diesel::table! {
    settings (name) {
        name -> Text,
        value -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(coupons, issued_coupons);
