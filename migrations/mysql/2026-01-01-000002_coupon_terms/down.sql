DROP TABLE coupon_terms;
