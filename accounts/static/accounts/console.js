// Its indicator's style would be put into the page as a <style>, which the CSP refuses; it is in console.css.
htmx.config.includeIndicatorStyles = false;
