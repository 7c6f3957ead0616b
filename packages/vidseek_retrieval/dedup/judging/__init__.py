"""Weighs what was found, and says from where on two videos are called one."""
