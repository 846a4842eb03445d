"""Profiles and notebook parameters, checked."""
