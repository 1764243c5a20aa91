DROP TABLE issued_coupons;
