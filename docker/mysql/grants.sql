-- The tests make databases of their own, all named coupon...; the user may do anything with those and nothing else.
CREATE DATABASE IF NOT EXISTS coupon;
CREATE USER IF NOT EXISTS 'coupon'@'%' IDENTIFIED BY 'coupon';
GRANT ALL PRIVILEGES ON `coupon%`.* TO 'coupon'@'%';
